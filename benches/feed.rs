//! The feed's kernels: finding rows by position, casting columns to rows, gathering rows into a batch.

#![allow(missing_docs, clippy::expect_used)] // criterion makes a public function; a bench may stop

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use feedline::feed::collate::{Element, FixedRows, gather};
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

fn rows<U: Element + bytemuck::Pod>(c: &mut Criterion, name: &str) {
    let order = order();
    let mut picked = Vec::new();
    order.locate_all(0, 1000..1000 + BATCH as u64, &mut picked);
    for cols in [8u32, 64] {
        let column = |c: u32| Numbers::F64((0..GROUP_ROWS).map(|r| f64::from(r + c)).collect::<Vec<_>>().into());
        let columns: Vec<Numbers> = (0..cols).map(column).collect();
        let mut group = c.benchmark_group(format!("{cols} columns of f64 to {name}"));
        group.throughput(Throughput::Elements(u64::from(GROUP_ROWS * cols)));
        group.bench_function("to rows", |b| b.iter(|| FixedRows::new::<U>(black_box(&columns), GROUP_ROWS as usize)));
        let groups: Vec<FixedRows> = (0..GROUPS).map(|_| FixedRows::new::<U>(&columns, GROUP_ROWS as usize)).collect();
        let groups: Vec<&FixedRows> = groups.iter().collect();
        let mut out = vec![0u8; BATCH * groups[0].width()];
        group.throughput(Throughput::Bytes(out.len() as u64));
        group.bench_function("gather", |b| b.iter(|| gather(&groups, &picked, black_box(&mut out))));
        group.finish();
    }
}

fn all_rows(c: &mut Criterion) {
    rows::<f32>(c, "f32");
    rows::<f16>(c, "f16");
    rows::<bf16>(c, "bf16");
}

criterion_group!(benches, locate, all_rows);
criterion_main!(benches);
