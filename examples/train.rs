//! Trains a small model on a dataset version with batches from the feed, and tells how good it is on the test split.
//!
//! ```text
//! cargo run --release --example train -- out/flights 3 16
//!                                        dataset     epochs hidden units (0: logistic regression)
//! ```
//!
//! Features and label are those of the `feed` section of the spec that made the version; the label is 0 or 1. The model is a perceptron with one hidden
//! layer, trained with AdamW on binary cross-entropy. On data with few positives accuracy says little (always "no" is right most of the time):
//! look at precision, recall, F1 and the area under the ROC curve. The threshold is the share of positives in the training split, which is what
//! a model that knows nothing would predict.

use std::path::Path;

use candle_core::{D, DType, Device, Tensor};
use candle_nn::{AdamW, Linear, Module, Optimizer, ParamsAdamW, VarBuilder, VarMap, linear, ops};
use feedline::dataset::{Dataset, Manifest};
use feedline::error::{Error, Result as FeedResult};
use feedline::feed::{Batch, Feed, FeedOptions, drive, spec_of};
use feedline::spec::pipeline::FeedSpec;
use feedline::storage::Location;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let mut args = std::env::args().skip(1);
    let Some(folder) = args.next() else {
        eprintln!("usage: train <dataset folder> [epochs] [hidden units]");
        std::process::exit(64);
    };
    let number = |text: Option<String>, default: usize| text.map_or(Ok(default), |t| t.parse());
    let epochs = number(args.next(), 3)? as u64;
    let hidden = number(args.next(), 16)?;

    let root = Location::open(&folder, Path::new("."))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let manifest = runtime.block_on(Dataset::new(root.clone()).manifest(None))?;
    let spec = FeedSpec { columns: Vec::new(), tokens: None, ..spec_of(&manifest)? };
    if spec.features.is_empty() || spec.label.is_none() {
        return Err("the spec's `feed` section needs `features` and a `label`".into());
    }
    let data = Data { root, manifest, spec };

    let model = Model::new(data.spec.features.len(), hidden)?;
    let mut optimizer = AdamW::new(model.variables.all_vars(), ParamsAdamW { lr: 5e-3, ..Default::default() })?;
    let (mut positives, mut seen) = (0.0, 0.0);
    for epoch in 0..epochs {
        let (mut total, mut rows) = (0.0, 0.0);
        let mut feed = data.open("train", epoch)?;
        for batch in feed.by_ref() {
            let (x, y) = tensors(&batch?)?;
            let loss = cross_entropy(&model.forward(&x)?, &y)?;
            optimizer.backward_step(&loss)?;
            let n = y.dim(0)? as f64;
            total += f64::from(loss.to_scalar::<f32>()?) * n;
            rows += n;
            positives += f64::from(y.sum_all()?.to_scalar::<f32>()?);
        }
        seen += rows;
        // The loop above took every batch: this only reads the counters.
        let summary = drive(&mut feed, None)?;
        println!(
            "epoch {epoch}: loss {:.4} over {rows} rows, {:.0} % of the time waiting for data",
            total / rows.max(1.0),
            summary.stats.waiting() * 100.0
        );
    }

    let share = positives / f64::max(seen, 1.0);
    let scored = score(&model, &data)?;
    let metrics = Metrics::new(&scored, share as f32);
    println!("train: {:.1} % positive, so that is the threshold", share * 100.0);
    println!(
        "test:  {} rows, {:.1} % positive (always answering \"no\" is {:.1} % accurate)",
        scored.len(),
        metrics.positive * 100.0,
        (1.0 - metrics.positive) * 100.0
    );
    println!("accuracy  {:.4}", metrics.accuracy);
    println!("precision {:.4}", metrics.precision);
    println!("recall    {:.4}", metrics.recall);
    println!("F1        {:.4}", metrics.f1);
    println!("ROC AUC   {:.4}", metrics.roc_auc);
    Ok(())
}

/// A version, and what is read of it.
struct Data {
    root: Location,
    manifest: Manifest,
    spec: FeedSpec,
}

impl Data {
    fn open(&self, split: &str, epoch: u64) -> FeedResult<Feed> {
        let options = FeedOptions { split: Some(split.to_owned()), epoch, ..Default::default() };
        Feed::open(&self.root, &self.manifest, &self.spec, options)
    }
}

/// Features `[rows, cols]` and labels `[rows]` of a batch.
fn tensors(batch: &Batch) -> Outcome<(Tensor, Tensor)> {
    let lacks = |what: &str| Error::input(format!("the batch has no {what}"));
    let matrix = batch.features().ok_or_else(|| lacks("features"))?;
    let labels = batch.labels().ok_or_else(|| lacks("label"))?.to_f32();
    if let Some(other) = labels.iter().find(|&&y| y != 0.0 && y != 1.0) {
        return Err(format!("the label is {other} somewhere; this example knows 0 and 1").into());
    }
    let x = Tensor::from_vec(matrix.data.to_f32(), (matrix.rows, matrix.cols), &Device::Cpu)?;
    Ok((x, Tensor::from_vec(labels, matrix.rows, &Device::Cpu)?))
}

/// Logistic regression, or a perceptron with one hidden layer.
struct Model {
    variables: VarMap,
    hidden: Option<Linear>,
    output: Linear,
}

impl Model {
    fn new(features: usize, hidden: usize) -> candle_core::Result<Self> {
        let variables = VarMap::new();
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let layer = if hidden > 0 { Some(linear(features, hidden, vb.pp("hidden"))?) } else { None };
        let output = linear(if hidden > 0 { hidden } else { features }, 1, vb.pp("output"))?;
        Ok(Self { variables, hidden: layer, output })
    }

    /// Logits `[rows]`.
    fn forward(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        let x = match &self.hidden {
            Some(layer) => layer.forward(x)?.relu()?,
            None => x.clone(),
        };
        self.output.forward(&x)?.squeeze(D::Minus1)
    }
}

/// Mean binary cross-entropy of logits, in the form that stays finite however sure the model is: `max(x, 0) − x·y + ln(1 + e^−|x|)`.
fn cross_entropy(logits: &Tensor, y: &Tensor) -> candle_core::Result<Tensor> {
    let softplus = (logits.abs()?.neg()?.exp()? + 1.0)?.log()?;
    ((logits.relu()? - (logits * y)?)? + softplus)?.mean_all()
}

/// Probability and truth of every row of the test split.
fn score(model: &Model, data: &Data) -> Outcome<Vec<(f32, bool)>> {
    let mut scored = Vec::new();
    for batch in data.open("test", 0)? {
        let (x, y) = tensors(&batch?)?;
        let p = ops::sigmoid(&model.forward(&x)?)?.to_vec1::<f32>()?;
        scored.extend(p.into_iter().zip(y.to_vec1::<f32>()?.into_iter().map(|y| y > 0.5)));
    }
    Ok(scored)
}

/// How good a binary classifier is.
struct Metrics {
    positive: f64,
    accuracy: f64,
    precision: f64,
    recall: f64,
    f1: f64,
    roc_auc: f64,
}

impl Metrics {
    fn new(scored: &[(f32, bool)], threshold: f32) -> Self {
        let count = |said: bool, is: bool| scored.iter().filter(|(p, y)| (*p >= threshold) == said && *y == is).count() as f64;
        let (tp, fp, fneg, tn) = (count(true, true), count(true, false), count(false, true), count(false, false));
        let ratio = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
        Self {
            positive: ratio(tp + fneg, tp + fp + fneg + tn),
            accuracy: ratio(tp + tn, tp + fp + fneg + tn),
            precision: ratio(tp, tp + fp),
            recall: ratio(tp, tp + fneg),
            f1: ratio(2.0 * tp, 2.0 * tp + fp + fneg),
            roc_auc: roc_auc(scored),
        }
    }
}

/// The area under the ROC curve, exactly: the chance that a positive row scores above a negative one, ties counted half. By the rank sum of
/// the positives (Mann and Whitney, 1947), with mean ranks for ties. NaN where one class is missing.
fn roc_auc(scored: &[(f32, bool)]) -> f64 {
    let mut sorted: Vec<&(f32, bool)> = scored.iter().collect();
    sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut below, mut rank_sum) = (0, 0.0);
    for ties in sorted.chunk_by(|a, b| a.0 == b.0) {
        let mean_rank = below as f64 + (ties.len() + 1) as f64 / 2.0;
        rank_sum += mean_rank * ties.iter().filter(|s| s.1).count() as f64;
        below += ties.len();
    }
    let positives = scored.iter().filter(|s| s.1).count() as f64;
    let negatives = scored.len() as f64 - positives;
    (rank_sum - positives * (positives + 1.0) / 2.0) / (positives * negatives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auc_of_small_cases() {
        assert_eq!(roc_auc(&[(0.1, false), (0.4, false), (0.35, true), (0.8, true)]), 0.75);
        assert_eq!(roc_auc(&[(0.5, false), (0.5, true)]), 0.5);
        assert_eq!(roc_auc(&[(0.9, true), (0.1, false)]), 1.0);
    }

    #[test]
    fn cross_entropy_by_hand_and_far_out() {
        let of = |x: f32, y: f32| {
            let t = |v| Tensor::new(&[v], &Device::Cpu).unwrap();
            cross_entropy(&t(x), &t(y)).unwrap().to_scalar::<f32>().unwrap()
        };
        assert!((of(0.0, 1.0) - 2f32.ln()).abs() < 1e-6);
        assert!((of(2.0, 0.0) - 2.126_928).abs() < 1e-5);
        assert_eq!((of(200.0, 1.0), of(-200.0, 1.0)), (0.0, 200.0));
    }

    #[test]
    fn metrics_by_hand() {
        let m = Metrics::new(&[(0.9, true), (0.8, false), (0.2, true), (0.1, false), (0.05, false)], 0.5);
        assert_eq!((m.accuracy, m.precision, m.recall, m.f1), (0.6, 0.5, 0.5, 0.5));
    }
}
