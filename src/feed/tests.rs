//! The feed as a whole, on small datasets on a disk and in an object store.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::AsArray;
use arrow::datatypes::Int64Type;
use half::{bf16, f16};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use proptest::prelude::*;
use serde_json::json;

use super::testing::{Fixture, drain, ids, spec, tokens_of};
use super::*;
use crate::error::Kind;
use crate::spec::pipeline::Shuffle;

fn options() -> FeedOptions {
    FeedOptions { threads: 2, window_rows: 150, ..Default::default() }
}

/// A feed whose labels are the rows' numbers.
fn by_id(batch_rows: usize) -> FeedSpec {
    spec(json!({"batch_rows": batch_rows, "features": ["x", "k", "late"], "label": "id"}))
}

/// Everything a feed gives, as comparable values.
fn everything(feed: Feed) -> Vec<(u64, Vec<f32>, Vec<i64>)> {
    feed.map(|b| {
        let b = b.unwrap();
        (b.position(), b.features().unwrap().data.to_f32(), ids(&b))
    })
    .collect()
}

#[test]
fn every_row_comes_once_with_its_own_features() {
    let f = Fixture::new(3, 200, 64);
    let mut feed = f.open(&by_id(37), options());
    assert_eq!(feed.rows(), 600);
    let mut seen = Vec::new();
    let (mut batches, mut position) = (0, 0);
    for batch in feed.by_ref() {
        let batch = batch.unwrap();
        assert_eq!(batch.position(), position);
        position += batch.rows() as u64;
        batches += 1;
        let x = batch.features().unwrap();
        assert_eq!((x.rows, x.cols), (batch.rows(), 3));
        let data = x.data.to_f32();
        for (row, id) in data.chunks(3).zip(ids(&batch)) {
            assert_eq!(row, [id as f32 / 4.0, (id % 100) as f32, f32::from(u8::from(id % 3 == 0))]);
            seen.push(id);
        }
    }
    assert_eq!(batches, 17);
    assert_ne!(seen, (0..600).collect::<Vec<_>>());
    seen.sort_unstable();
    assert_eq!(seen, (0..600).collect::<Vec<_>>());
    assert_eq!(feed.state().position, 600);
    assert!(feed.next().is_none());
}

#[test]
fn epochs_and_seeds_differ_and_no_shuffle_is_as_written() {
    let f = Fixture::new(2, 200, 64);
    let order = |o: FeedOptions| drain(&mut f.open(&by_id(32), o));
    let base = order(options());
    assert_eq!(base, order(FeedOptions { seed: Some(7), ..options() }), "the manifest's seed is 7");
    assert_ne!(base, order(FeedOptions { epoch: 1, ..options() }));
    assert_ne!(base, order(FeedOptions { seed: Some(8), ..options() }));
    let plain = FeedSpec { shuffle: Shuffle::None, ..by_id(32) };
    assert_eq!(drain(&mut f.open(&plain, options())), (0..400).collect::<Vec<_>>());
}

#[test]
fn batches_depend_neither_on_threads_nor_on_prefetch_nor_on_memory() {
    let f = Fixture::new(3, 200, 64);
    let with = |threads, prefetch, memory| everything(f.open(&by_id(41), FeedOptions { threads, prefetch, memory, ..options() }));
    let one = with(1, 1, None);
    for threads in [1, 2, 4, 7] {
        for prefetch in [1, 3, 50] {
            assert_eq!(with(threads, prefetch, None), one, "{threads} threads, prefetch {prefetch}");
        }
    }
    assert_eq!(with(3, 4, Some(10_000)), one);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn a_resumed_feed_goes_on_with_the_next_row(batch_rows in 1usize..90, taken in 0usize..12, threads in 1usize..4, window_rows in 1u64..700, other_rows in 1usize..90) {
        let f = Fixture::new(2, 200, 64);
        let options = || FeedOptions { threads, window_rows, ..Default::default() };
        let whole = drain(&mut f.open(&by_id(batch_rows), options()));
        let mut first = f.open(&by_id(batch_rows), options());
        let mut got: Vec<i64> = first.by_ref().take(taken).flat_map(|b| ids(&b.unwrap())).collect();
        prop_assert_eq!(first.state().position, got.len() as u64);
        let state = FeedState::from_json(&first.state().to_json().unwrap()).unwrap();
        drop(first);
        // Other options but the state: the state's order holds.
        let mut rest = f.open(&by_id(other_rows), FeedOptions { threads: 2, seed: Some(99), epoch: 5, resume: Some(state), ..Default::default() });
        got.extend(drain(&mut rest));
        prop_assert_eq!(got, whole);
    }

    #[test]
    fn another_world_size_takes_exactly_what_is_left(world in 1usize..5, other in 1usize..5, steps in 0usize..4, batch_rows in 1usize..40) {
        let f = Fixture::new(2, 200, 64);
        let whole = drain(&mut f.open(&by_id(64), options()));
        let of_rank = |rank, world_size, resume: Option<FeedState>| FeedOptions { rank, world_size, resume, ..options() };
        let (mut got, mut states) = (Vec::new(), Vec::new());
        for rank in 0..world {
            let mut feed = f.open(&by_id(batch_rows), of_rank(rank, world, None));
            got.extend(feed.by_ref().take(steps).map(|b| b.unwrap()).map(|b| (b.position(), ids(&b))));
            states.push(feed.state());
        }
        prop_assert!(states.iter().all(|s| *s == states[0]), "ranks in step have one state");
        for rank in 0..other {
            let feed = f.open(&by_id(batch_rows), of_rank(rank, other, Some(states[0].clone())));
            got.extend(feed.map(|b| b.unwrap()).map(|b| (b.position(), ids(&b))));
        }
        got.sort_by_key(|(position, _)| *position);
        prop_assert_eq!(got.into_iter().flat_map(|(_, ids)| ids).collect::<Vec<_>>(), whole);
    }
}

#[test]
fn drop_last_gives_every_rank_as_many_batches() {
    let f = Fixture::new(2, 200, 64);
    let s = FeedSpec { drop_last: true, ..by_id(30) };
    for rank in 0..3 {
        let rows: Vec<usize> = f.open(&s, FeedOptions { rank, world_size: 3, ..options() }).map(|b| b.unwrap().rows()).collect();
        assert_eq!(rows, [30; 4]);
    }
}

#[test]
fn halves_and_labels_have_their_types() {
    let f = Fixture::new(1, 100, 64);
    let of = |dtype: &str, label: &str| {
        f.open(&spec(json!({"features": ["x", "k"], "label": label, "dtype": dtype, "shuffle": "none"})), options())
    };
    let batch = of("f16", "late").next().unwrap().unwrap();
    assert!(matches!(batch.features().unwrap().data, MatrixData::F16(v) if v[2..4] == [f16::from_f32(0.25), f16::from_f32(1.0)]));
    assert!(matches!(batch.labels(), Some(Labels::I64(v)) if v[..4] == [1, 0, 0, 1]));
    let batch = of("bf16", "holes").next().unwrap();
    assert!(batch.unwrap_err().to_string().contains("`holes`"));
    let batch =
        f.open(&spec(json!({"features": ["k"], "label": "x", "dtype": "bf16", "shuffle": "none"})), options()).next().unwrap().unwrap();
    assert!(matches!(batch.features().unwrap().data, MatrixData::Bf16(v) if v[3] == bf16::from_f32(3.0)));
    assert!(matches!(batch.labels(), Some(Labels::F32(v)) if v[..3] == [0.0, 0.25, 0.5]));
}

#[test]
fn columns_come_beside_the_matrix_in_the_same_order() {
    let f = Fixture::new(2, 100, 30);
    let s = spec(json!({"batch_rows": 64, "features": ["x"], "label": "id", "columns": ["name", "id"]}));
    let mut rows = 0;
    for batch in f.open(&s, FeedOptions { window_rows: 50, ..options() }) {
        let batch = batch.unwrap();
        let columns = batch.columns().unwrap();
        assert_eq!(columns.schema().fields().iter().map(|f| f.name().as_str()).collect::<Vec<_>>(), ["name", "id"]);
        assert_eq!(columns.column(1).as_primitive::<Int64Type>().values()[..], ids(&batch)[..]);
        let names: Vec<String> = columns.column(0).as_string::<i32>().iter().map(|n| n.unwrap().to_owned()).collect();
        assert_eq!(names, ids(&batch).iter().map(|i| format!("row {i}")).collect::<Vec<_>>());
        rows += columns.num_rows();
    }
    assert_eq!(rows, 200);
    let batch = f.open(&spec(json!({"batch_rows": 8})), options()).next().unwrap().unwrap();
    assert_eq!(batch.columns().unwrap().num_columns(), 7, "without features all columns are given");
    assert!(batch.features().is_none() && batch.labels().is_none() && batch.tokens().is_none());
}

#[test]
fn padded_tokens_are_cut_or_filled() {
    let f = Fixture::new(1, 100, 30);
    let s = spec(json!({"batch_rows": 16, "label": "id", "tokens": {"column": "tokens", "length": 10, "pad_id": 9}}));
    for batch in f.open(&s, options()) {
        let batch = batch.unwrap();
        assert!(batch.columns().is_none());
        let t = batch.tokens().unwrap();
        let mask = t.mask.unwrap();
        for (i, id) in ids(&batch).into_iter().enumerate() {
            let want: Vec<i32> = tokens_of(id).take(10).collect();
            let (got, seen) = (&t.ids_i32()[i * 10..(i + 1) * 10], &mask[i * 10..(i + 1) * 10]);
            assert_eq!(got[..want.len()], want[..]);
            assert!(got[want.len()..].iter().all(|&p| p == 9));
            assert_eq!(seen.iter().map(|&m| usize::from(m)).sum::<usize>(), want.len());
        }
    }
}

/// The tokens of all packed rows, without padding, row by row.
fn unpacked(batches: impl Iterator<Item = Result<Batch>>) -> Vec<Vec<u32>> {
    batches
        .flat_map(|b| {
            let b = b.unwrap();
            let t = b.tokens().unwrap();
            let rows: Vec<Vec<u32>> = t
                .ids
                .chunks(t.length)
                .zip(t.segments.unwrap().chunks(t.length))
                .map(|(ids, segments)| ids.iter().zip(segments).filter(|(_, s)| **s > 0).map(|(i, _)| *i).collect())
                .collect();
            assert_eq!(rows.len(), b.rows());
            rows
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    #[test]
    fn packing_loses_no_token_and_resumes(length in 3usize..40, batch_rows in 1usize..30, taken in 0usize..6, world in 1usize..4, window_rows in 1u64..300) {
        let f = Fixture::new(2, 100, 30);
        let s = spec(json!({"batch_rows": batch_rows, "tokens": {"column": "tokens", "length": length, "mode": "pack"}}));
        let options = || FeedOptions { threads: 2, window_rows, ..Default::default() };
        let whole = unpacked(f.open(&s, options()));
        let mut all: Vec<u32> = whole.concat();
        all.sort_unstable();
        let mut want: Vec<u32> = (0..200).flat_map(tokens_of).map(|t| t as u32).collect();
        want.sort_unstable();
        prop_assert_eq!(all, want);

        let mut first = f.open(&s, options());
        let mut got = unpacked(first.by_ref().take(taken));
        let state = first.state();
        // Ranks go on from it: each step is theirs in turn.
        let mut ranks: Vec<Feed> = (0..world)
            .map(|rank| f.open(&s, FeedOptions { rank, world_size: world, resume: Some(state.clone()), ..options() }))
            .collect();
        loop {
            let step: Vec<Batch> = ranks.iter_mut().filter_map(Iterator::next).map(|b| b.unwrap()).collect();
            if step.is_empty() {
                break;
            }
            got.extend(unpacked(step.into_iter().map(Ok)));
        }
        prop_assert_eq!(got, whole);
    }
}

#[test]
fn dropping_a_feed_ends_its_threads() {
    let f = Fixture::new(3, 200, 16);
    for taken in [0, 1, 3] {
        for threads in [1, 4] {
            let mut feed = f.open(&by_id(8), FeedOptions { threads, prefetch: 2, ..options() });
            let kept: Vec<Batch> = feed.by_ref().take(taken).map(|b| b.unwrap()).collect();
            let shared = Arc::downgrade(&feed.shared);
            let start = Instant::now();
            drop(feed);
            assert!(start.elapsed() < Duration::from_secs(5));
            assert!(shared.upgrade().is_none(), "a thread is left");
            assert!(kept.iter().all(|b| b.rows() == 8), "batches outlive their feed");
        }
    }
}

#[test]
fn a_consumer_that_keeps_every_batch_is_not_left_waiting() {
    let f = Fixture::new(2, 200, 64);
    let kept: Vec<Batch> = f.open(&by_id(10), FeedOptions { prefetch: 1, ..options() }).map(|b| b.unwrap()).collect();
    assert_eq!(kept.len(), 40);
    let mut all: Vec<i64> = kept.iter().flat_map(ids).collect();
    all.sort_unstable();
    assert_eq!(all, (0..400).collect::<Vec<_>>());
}

fn address(batch: &Batch) -> usize {
    match batch.features().unwrap().data {
        MatrixData::F32(v) => v.as_ptr() as usize,
        _ => 0,
    }
}

#[test]
fn slots_are_used_again() {
    let f = Fixture::new(2, 200, 64);
    let mut feed = f.open(&by_id(10), FeedOptions { prefetch: 2, ..options() });
    let pool = feed.shared.cx.pool.clone();
    let blocks: std::collections::BTreeSet<usize> = feed.by_ref().map(|b| b.unwrap()).map(|b| address(&b)).collect();
    assert!(blocks.len() <= 4, "{} blocks for 40 batches", blocks.len());
    drop(feed);
    assert!(pool.free() <= 3);
}

#[test]
fn a_missing_or_broken_shard_is_named_and_the_feed_ends() {
    let f = Fixture::new(3, 200, 64);
    std::fs::remove_file(f.shard(1)).unwrap();
    for threads in [1, 4] {
        let mut feed = f.open(&by_id(10), FeedOptions { threads, ..options() });
        let e = feed.by_ref().find_map(Result::err).unwrap();
        assert_eq!(e.kind(), Kind::Storage);
        assert!(e.place().is_some_and(|p| p.contains("part-1.parquet")), "{e:?}");
        assert!(e.to_do().is_some());
        assert!(feed.next().is_none());
        assert!(feed.state().position < 600);
    }
    let mut bytes = std::fs::read(f.shard(2)).unwrap();
    let middle = bytes.len() / 3;
    bytes[4..middle].fill(0xff);
    std::fs::write(f.shard(1), std::fs::read(f.shard(0)).unwrap()).unwrap();
    std::fs::write(f.shard(2), &bytes).unwrap();
    let e = f.open(&by_id(10), options()).find_map(Result::err).unwrap();
    assert!(e.place().is_some_and(|p| p.contains("part-2.parquet, row group")), "{e:?}");
    std::fs::write(f.shard(0), b"PAR1").unwrap();
    assert!(Feed::open(&f.root, &f.manifest, &by_id(10), options()).unwrap_err().place().unwrap().contains("part-0.parquet"));
}

#[test]
fn mistakes_are_told_before_anything_runs() {
    let f = Fixture::new(1, 100, 64);
    let open = |s: &FeedSpec, o: FeedOptions| Feed::open(&f.root, &f.manifest, s, o).unwrap_err();
    let e = open(&spec(json!({"features": ["xx"]})), options());
    assert_eq!((e.exit_code(), e.to_do()), (78, Some("did you mean `x`?")));
    let e = open(&spec(json!({"features": ["name"]})), options());
    assert!(e.to_string().contains("not a number"), "{e}");
    let e = open(&by_id(8), FeedOptions { split: Some("trian".into()), ..options() });
    assert_eq!(e.to_do(), Some("did you mean `train`?"));
    assert_eq!(open(&by_id(8), FeedOptions { threads: 0, ..options() }).exit_code(), 64);
    assert_eq!(open(&by_id(8), FeedOptions { rank: 2, world_size: 2, ..options() }).exit_code(), 64);
    let mut state = f.open(&by_id(8), options()).state();
    state.version = "0123456789abcdef".into();
    assert!(open(&by_id(8), FeedOptions { resume: Some(state), ..options() }).to_string().contains("another dataset version"));
}

#[test]
fn an_empty_split_ends_at_once() {
    let f = Fixture::new(1, 100, 64);
    let mut feed = f.open(&by_id(8), FeedOptions { split: Some("empty".into()), ..options() });
    assert!(feed.next().is_none());
    assert_eq!(f.open(&by_id(8), FeedOptions { split: Some("test".into()), ..options() }).map(|b| b.unwrap().rows()).sum::<usize>(), 50);
}

#[test]
fn a_window_beyond_the_memory_is_an_error_with_a_hint() {
    let f = Fixture::new(2, 200, 64);
    let e = f.open(&by_id(8), FeedOptions { memory: Some(1000), ..options() }).next().unwrap().unwrap_err();
    assert_eq!(e.kind(), Kind::Resources);
    assert!(e.to_do().is_some_and(|h| h.contains("window_rows")));
}

#[test]
fn a_forked_feed_says_so_and_does_not_hang() {
    let f = Fixture::new(1, 100, 64);
    let mut feed = f.open(&by_id(8), options());
    feed.process = feed.process.wrapping_add(1);
    assert!(feed.next().unwrap().unwrap_err().to_string().contains("forked"));
    assert!(feed.next().is_none());
    feed.process = std::process::id();
}

#[test]
fn an_object_store_gives_the_same_batches() {
    let f = Fixture::new(3, 200, 64);
    let store = Arc::new(InMemory::new());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for shard in &f.manifest.shards {
        let bytes = std::fs::read(f.dir.path().join(&shard.path)).unwrap();
        runtime.block_on(store.put(&object_store::path::Path::from(format!("bucket/{}", shard.path)), bytes.into())).unwrap();
    }
    let root = Location::of(store.clone(), "bucket");
    let remote = Feed::open(&root, &f.manifest, &by_id(41), options()).unwrap();
    assert_eq!(everything(remote), everything(f.open(&by_id(41), options())));
    // Inside of a runtime of the user's, too: neither opening nor dropping may block on it.
    runtime.block_on(async {
        let mut feed = Feed::open(&root, &f.manifest, &by_id(8), options()).unwrap();
        assert_eq!(feed.next().unwrap().unwrap().rows(), 8);
    });
    runtime.block_on(store.delete(&object_store::path::Path::from(format!("bucket/{}", f.manifest.shards[2].path)))).unwrap();
    let e = Feed::open(&root, &f.manifest, &by_id(8), options()).unwrap().find_map(Result::err).unwrap();
    assert!(e.to_string().contains("missing") && e.place().is_some_and(|p| p.contains("part-2")), "{e}");
}

#[test]
fn stats_and_summary_add_up() {
    let f = Fixture::new(3, 200, 64);
    let summary = drive(&mut f.open(&by_id(50), options()), Some(4)).unwrap();
    assert_eq!((summary.stats.batches, summary.stats.rows, summary.ended), (4, 200, false));
    assert_eq!(summary.state.position, 200);
    let mut feed = f.open(&by_id(50), options());
    let all = drive(&mut feed, None).unwrap();
    assert_eq!((all.stats.batches, all.stats.rows, all.ended), (12, 600, true));
    assert_eq!(all.stats.bytes_out, 600 * (3 * 4 + 8));
    assert!(all.stats.bytes_read > 0 && all.stats.decode_s > 0.0 && all.stats.held_peak > 0);
    assert!(all.stats.wait_s <= all.stats.wall_s);
    let text = all.to_string();
    assert!(text.contains("600 rows in 12 batches") && text.contains("decode") && text.contains("waited"), "{text}");
}

#[test]
fn a_resume_reads_only_the_windows_that_are_left() {
    let f = Fixture::new(4, 200, 50);
    let read =
        |resume: Option<FeedState>| drive(&mut f.open(&by_id(50), FeedOptions { resume, ..options() }), None).unwrap().stats.bytes_read;
    let mut feed = f.open(&by_id(50), options());
    assert_eq!(feed.by_ref().take(14).count(), 14);
    // Position 700 of 800, in windows of 150: 600..750 and 750..800 are left, 4 of 16 row groups.
    let (whole, rest) = (read(None), read(Some(feed.state())));
    assert!(rest * 3 < whole, "{rest} of {whole} bytes");
    drop(feed);
    // An epoch that was read to its end has nothing left, and the next one has everything.
    let mut ended = f.open(&by_id(50), options());
    assert_eq!(drain(&mut ended).len(), 800);
    assert!(f.open(&by_id(50), FeedOptions { resume: Some(ended.state()), ..options() }).next().is_none());
    assert_eq!(drain(&mut f.open(&by_id(50), FeedOptions { resume: Some(ended.state().next_epoch()), ..options() })).len(), 800);
}

#[test]
fn the_spec_of_a_version_is_its_feed_section() {
    let mut f = Fixture::new(1, 100, 64);
    assert_eq!(spec_of(&f.manifest).unwrap().features, ["x"]);
    f.manifest.spec = json!({});
    assert_eq!(spec_of(&f.manifest).unwrap().batch_rows, 1024);
}
