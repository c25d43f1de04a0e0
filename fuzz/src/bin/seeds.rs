//! Writes the seeds where cargo-fuzz looks for them: `fuzz/corpus/<target>/`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for (target, _) in feedline_fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        for (i, seed) in feedline_fuzz::seeds::of(target).iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{i}")), seed)?;
        }
    }
    Ok(())
}
