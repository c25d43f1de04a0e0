//! The kernels alone, one core: `cargo bench --bench kernels`.

// criterion's macro makes a public function without a comment
#![allow(missing_docs)]

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use feedline::stages::near_dedup::minhash::MinHasher;
use feedline::stages::near_dedup::recipe::{Recipe, Shingle};
use feedline::stages::near_dedup::shingles::Shingler;
use feedline::stages::near_dedup::verify::similar;
use std::hint::black_box;

/// Texts of about 2,000 characters out of 20,000 words, with capitals, digits, punctuation and now and then a letter beyond ASCII.
fn texts(bytes: usize) -> Vec<String> {
    let mut state = 1u64;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut texts = Vec::new();
    let mut made = 0;
    while made < bytes {
        let mut text = String::new();
        while text.len() < 2000 {
            let word = next(20_000);
            let letters = 1 + word % 9;
            for i in 0..letters {
                let letter = char::from(b'a' + ((word >> i) * 7 % 26) as u8);
                text.push(if i == 0 && next(10) == 0 { letter.to_ascii_uppercase() } else { letter });
            }
            match next(40) {
                0 => text.push_str(" — é"),
                1 => text.push_str(" 2024"),
                2..=5 => text.push_str(",\n"),
                _ => {}
            }
            text.push(' ');
        }
        made += text.len();
        texts.push(text);
    }
    texts
}

fn near_dedup(c: &mut Criterion) {
    let texts = texts(4 << 20);
    let bytes = texts.iter().map(String::len).sum::<usize>() as u64;
    let recipe = Recipe { shingle: Shingle::Words(5), fold_digits: true, bands: 26, rows: 5, seed: 7 };
    let (mut shingler, mut hasher) = (Shingler::new(&recipe), MinHasher::new(&recipe));
    let (mut shingles, mut prints) = (Vec::new(), Vec::new());

    let mut group = c.benchmark_group("near_dedup");
    group.sample_size(10).throughput(Throughput::Bytes(bytes));
    group.bench_function("words to shingles", |b| {
        b.iter(|| texts.iter().for_each(|text| _ = black_box(shingler.shingles(text, &mut shingles))));
    });
    group.bench_function("words to shingles to 26 x 5 fingerprints", |b| {
        b.iter(|| {
            for text in &texts {
                prints.clear();
                shingler.shingles(text, &mut shingles);
                hasher.fingerprints(&shingles, &mut prints);
                black_box(&prints);
            }
        });
    });
    let chars = Recipe { shingle: Shingle::Chars(24), ..recipe };
    let mut shingler = Shingler::new(&chars);
    group.bench_function("characters to shingles", |b| {
        b.iter(|| texts.iter().for_each(|text| _ = black_box(shingler.shingles(text, &mut shingles))));
    });
    group.finish();

    let (a, b): (Vec<u32>, Vec<u32>) = ((0..4000).map(|i| i * 3).collect(), (0..4000).map(|i| i * 3 + u32::from(i % 5 == 0)).collect());
    c.benchmark_group("verify").throughput(Throughput::Elements(8000)).bench_function("similar", |bench| {
        bench.iter(|| black_box(similar(black_box(&a), black_box(&b), 0.6)));
    });
}

criterion_group!(kernels, near_dedup);
criterion_main!(kernels);
