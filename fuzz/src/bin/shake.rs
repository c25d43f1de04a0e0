//! Mutates the seeds blindly, for machines without cargo-fuzz: `cargo run --bin shake -- SECONDS [TARGET]…`. An input that fails is kept in
//! `fuzz/artifacts/<target>/`, and its target's name and number end the run with code 1; the same numbers come again each time.

use std::panic::catch_unwind;
use std::path::Path;
use std::time::{Duration, Instant};

use feedline_fuzz::{TARGETS, Target, seeds};

/// An input that takes longer is told of.
const SLOW: Duration = Duration::from_secs(2);
/// No input grows beyond this.
const LONGEST: usize = 64 << 10;

/// xorshift64*: all the chance that is needed here.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n.max(1)
    }

    fn span(&mut self, length: usize) -> std::ops::Range<usize> {
        let from = self.below(length + 1);
        let most = [4, 16, 256][self.below(3)];
        from..(from + self.below(most)).min(length)
    }
}

fn mutate(input: &mut Vec<u8>, others: &[Vec<u8>], chance: &mut Chance) {
    let at = chance.below(input.len() + 1);
    match chance.below(8) {
        0 if at < input.len() => input[at] ^= 1 << chance.below(8),
        1 if at < input.len() => input[at] = [0, 1, 0x7f, 0x80, 0xff, b'\n', b'"', b' '][chance.below(8)],
        2 => input.insert(at, chance.below(256) as u8),
        3 => drop(input.drain(chance.span(input.len()))),
        4 => {
            let again = input[chance.span(input.len())].to_vec();
            input.splice(at..at, again);
        }
        5 => {
            let other = &others[chance.below(others.len())];
            input.splice(at..at, other[chance.span(other.len())].iter().copied());
        }
        6 => {
            let word = seeds::WORDS[chance.below(seeds::WORDS.len())];
            input.splice(at..at, word.bytes());
        }
        _ => {
            let word = seeds::WORDS[chance.below(seeds::WORDS.len())];
            input.splice(chance.span(input.len()), word.bytes());
        }
    }
    input.truncate(LONGEST);
}

/// Shakes one target; how many inputs it took, or the one that failed.
fn shake(name: &str, target: Target, time: Duration) -> Result<u64, Vec<u8>> {
    let seeds = seeds::of(name);
    let mut chance = Chance(0x9E37_79B9_7F4A_7C15);
    let (began, mut tried) = (Instant::now(), 0);
    while began.elapsed() < time {
        let mut input = seeds[chance.below(seeds.len())].clone();
        (0..chance.below(8)).for_each(|_| mutate(&mut input, &seeds, &mut chance));
        let one = Instant::now();
        catch_unwind(|| target(&input)).map_err(|_| input.clone())?;
        if one.elapsed() > SLOW {
            println!("{name}: input {tried} took {:?}: {:?}", one.elapsed(), String::from_utf8_lossy(&input));
        }
        tried += 1;
    }
    Ok(tried)
}

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let seconds = args.first().and_then(|s| s.parse().ok()).unwrap_or(10);
    let mut failed = false;
    for (name, target) in TARGETS.iter().filter(|(name, _)| args.len() < 2 || args[1..].iter().any(|a| a == name)) {
        match shake(name, *target, Duration::from_secs(seconds)) {
            Ok(tried) => println!("{name}: {tried} inputs"),
            Err(input) => {
                let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("artifacts").join(name);
                std::fs::create_dir_all(&folder)?;
                std::fs::write(folder.join("shaken"), &input)?;
                println!("{name}: FAILED, kept in {}", folder.join("shaken").display());
                failed = true;
            }
        }
    }
    std::process::exit(i32::from(failed))
}
