//! The feed's kernels: finding rows by position, and gathering them into a matrix.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use feedline::feed::collate::gather_matrix;
use feedline::feed::decode::Numbers;
use feedline::feed::order::{Key, Order, RowGroup, RowRef};
use feedline::spec::pipeline::Shuffle;
use half::{bf16, f16};

const GROUPS: u32 = 4;
const GROUP_ROWS: u32 = 131_072;
const BATCH: usize = 4096;

fn order() -> Order {
    let groups = (0..GROUPS).map(|group| RowGroup { shard: 0, group, rows: GROUP_ROWS }).collect();
    let key = Key { version: "v", split: "train", seed: 1, epoch: 0 };
    Order::new(groups, Shuffle::Global, u64::from(GROUPS * GROUP_ROWS), key).expect("an order")
}

fn locate(c: &mut Criterion) {
    let order = order();
    let mut group = c.benchmark_group("order");
    group.throughput(Throughput::Elements(BATCH as u64));
    let mut out: Vec<RowRef> = Vec::with_capacity(BATCH);
    group.bench_function("locate", |b| {
        b.iter(|| {
            out.clear();
            order.locate_all(0, 1000..1000 + BATCH as u64, &mut out);
            black_box(&out);
        });
    });
    group.finish();
}

fn gather(c: &mut Criterion) {
    let order = order();
    let mut rows = Vec::new();
    order.locate_all(0, 1000..1000 + BATCH as u64, &mut rows);
    let column = |i: u32| -> Numbers {
        let values = (0..GROUP_ROWS).map(|r| f64::from(r + i));
        if i % 2 == 0 {
            Numbers::F64(values.collect::<Vec<_>>().into())
        } else {
            Numbers::F32(values.map(|v| v as f32).collect::<Vec<_>>().into())
        }
    };
    for cols in [8u32, 64] {
        let columns: Vec<Vec<Numbers>> = (0..cols).map(|c| (0..GROUPS).map(|g| column(c + g * cols)).collect()).collect();
        let refs: Vec<Vec<&Numbers>> = columns.iter().map(|c| c.iter().collect()).collect();
        let cells = BATCH * cols as usize;
        let mut group = c.benchmark_group(format!("gather {cols} columns"));
        group.throughput(Throughput::Elements(cells as u64));
        let mut out = vec![0f32; cells];
        group.bench_function("f32", |b| b.iter(|| gather_matrix(&refs, &rows, black_box(&mut out))));
        let mut out = vec![f16::ZERO; cells];
        group.bench_function("f16", |b| b.iter(|| gather_matrix(&refs, &rows, black_box(&mut out))));
        let mut out = vec![bf16::ZERO; cells];
        group.bench_function("bf16", |b| b.iter(|| gather_matrix(&refs, &rows, black_box(&mut out))));
        group.finish();
    }
}

criterion_group!(benches, locate, gather);
criterion_main!(benches);
