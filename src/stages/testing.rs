//! What the tests of row stages share: small tables with identities, cut in several ways, and stages read from JSON.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray, UInt32Array, UInt64Array};
use arrow::datatypes::{Field, Schema, SchemaRef, UInt32Type, UInt64Type};
use datafusion::catalog::{MemTable, Session, TableProvider};
use datafusion::datasource::TableType;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::Expr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::{DataFrame, SessionConfig, SessionContext};

use super::step::{CODE, Decide, Fits, How, ROW, Remarks, Reshape, Step, TableContext};
use super::{Side, Stage, StageContext, find};
use crate::error::{Error, Mistake};

/// How rows are cut: into how many partitions, and batches of how many rows.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub partitions: usize,
    pub batch: usize,
}

/// Cuts under which every result must be the same.
pub const SHAPES: [Shape; 4] = [
    Shape { partitions: 1, batch: 8192 },
    Shape { partitions: 2, batch: 100 },
    Shape { partitions: 4, batch: 3 },
    Shape { partitions: 3, batch: 1 },
];

pub fn session(shape: Shape) -> SessionContext {
    SessionContext::new_with_config(SessionConfig::new().with_target_partitions(shape.partitions).with_batch_size(shape.batch.max(2)))
}

/// A batch of one column of numbers.
pub fn numbers(name: &str, values: impl Iterator<Item = Option<i64>>) -> RecordBatch {
    columns(vec![(name, Arc::new(Int64Array::from_iter(values)) as ArrayRef)])
}

/// A batch of one column of text.
pub fn texts(name: &str, values: &[Option<&str>]) -> RecordBatch {
    columns(vec![(name, Arc::new(StringArray::from(values.to_vec())) as ArrayRef)])
}

/// A batch of nullable columns.
pub fn columns(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

/// The batch with `_row`: units of 1000 rows.
pub fn with_rows(data: &RecordBatch) -> RecordBatch {
    let rows = UInt64Array::from_iter_values((0..data.num_rows() as u64).map(|i| (i / 1000) << 32 | (i % 1000)));
    let mut fields: Vec<_> = data.schema().fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(ROW, arrow::datatypes::DataType::UInt64, false)));
    let mut arrays = data.columns().to_vec();
    arrays.push(Arc::new(rows));
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

/// A table that counts how often it is read.
#[derive(Debug)]
struct Counted {
    table: Arc<MemTable>,
    readings: Arc<AtomicU64>,
}

#[async_trait::async_trait]
impl TableProvider for Counted {
    fn schema(&self) -> SchemaRef {
        self.table.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        session: &dyn Session,
        columns: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
        self.readings.fetch_add(1, Relaxed);
        self.table.scan(session, columns, filters, limit).await
    }
}

fn provider(data: &RecordBatch, shape: Shape) -> Arc<MemTable> {
    let mut parts = vec![Vec::new(); shape.partitions];
    let mut at = 0;
    for i in 0.. {
        let length = shape.batch.min(data.num_rows() - at);
        if length == 0 {
            break;
        }
        parts[i % shape.partitions].push(data.slice(at, length));
        at += length;
    }
    Arc::new(MemTable::try_new(data.schema(), parts).unwrap())
}

/// The rows with their identities, cut to shape.
pub fn table(session: &SessionContext, data: RecordBatch, shape: Shape) -> DataFrame {
    session.read_table(provider(&with_rows(&data), shape)).unwrap()
}

/// Registers a side with its identities.
pub fn register(session: &SessionContext, name: &str, data: &RecordBatch, shape: Shape) {
    session.register_table(name, provider(&with_rows(data), shape)).unwrap();
}

/// What a stage is lowered against.
pub struct Bench {
    pub schema: SchemaRef,
    pub splits: Option<Vec<String>>,
    pub sides: BTreeMap<String, Side>,
    session: SessionContext,
}

impl Bench {
    pub fn new(data: &RecordBatch) -> Self {
        Self { schema: data.schema(), splits: None, sides: BTreeMap::new(), session: SessionContext::new() }
    }

    pub fn with_split(mut self) -> Self {
        self.splits = Some(vec!["train".into(), "test".into()]);
        self
    }

    pub fn with_side(mut self, name: &str, data: &RecordBatch, bytes: u64) -> Self {
        let table = Arc::new(OnceLock::from(vec![data.clone()]));
        self.sides.insert(name.into(), Side { schema: data.schema(), bytes, table });
        self
    }

    /// Parses and lowers a stage; parse errors are mistakes too.
    pub fn lower(&self, stage: &str, options: serde_json::Value) -> Result<Vec<Step>, Vec<Mistake>> {
        let stage: Box<dyn Stage> = (find(stage).unwrap().parse)(options).map_err(|m| vec![m])?;
        let cx = StageContext {
            schema: &self.schema,
            splits: self.splits.as_deref(),
            sides: &self.sides,
            label: "stage",
            seed: 7,
            session: &self.session,
        };
        stage.lower(&cx)
    }

    /// The only step, a decision.
    pub fn decide(&self, stage: &str, options: serde_json::Value) -> Decide {
        match self.lower(stage, options).unwrap().pop() {
            Some(Step::Decide(decide)) => decide,
            other => panic!("{other:?}"),
        }
    }

    /// The mistakes as `at: message (help)`.
    pub fn mistakes(&self, stage: &str, options: serde_json::Value) -> Vec<String> {
        let mistakes = self.lower(stage, options).unwrap_err();
        mistakes.into_iter().map(|m| format!("{}: {} ({})", m.at, m.message, m.help.unwrap_or_default())).collect()
    }
}

/// What a reshape makes, as one batch, after seeing that it has the schema declared.
pub fn reshaped(reshape: &Reshape, data: &RecordBatch, sides: &[(&str, &RecordBatch)], shape: Shape) -> Result<RecordBatch, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let session = session(shape);
        sides.iter().for_each(|(name, side)| register(&session, name, side, shape));
        let made = reshape.work.reshape(table(&session, data.clone(), shape), &session).await?.collect().await?;
        for batch in &made {
            let declared = reshape.output.fields().iter().map(|f| (f.name(), f.data_type()));
            assert!(batch.schema().fields().iter().map(|f| (f.name(), f.data_type())).eq(declared), "{:?}", batch.schema());
        }
        let batches: Vec<RecordBatch> =
            made.into_iter().map(|b| RecordBatch::try_new(reshape.output.clone(), b.columns().to_vec()).unwrap()).collect();
        Ok(arrow::compute::concat_batches(&reshape.output, &batches).unwrap())
    })
}

/// What a decision says of rows by number: `None` where it does not name a row, `Some(0)` for survivors.
pub fn verdicts(decide: &Decide, data: &RecordBatch, shape: Shape) -> Result<Vec<Option<u32>>, Error> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(run_decision(decide, data, shape, session(shape)))
}

pub async fn run_decision(decide: &Decide, data: &RecordBatch, shape: Shape, session: SessionContext) -> Result<Vec<Option<u32>>, Error> {
    let indices: Vec<usize> = decide.reads.iter().map(|r| data.schema().index_of(r).unwrap()).collect();
    let data = if indices.is_empty() { data.slice(0, data.num_rows()) } else { data.project(&indices).unwrap() };
    let mut out = vec![None; data.num_rows()];
    let mut name = |row: u64, code: Option<u32>| {
        let at = (row >> 32) as usize * 1000 + (row & 0xFFFF_FFFF) as usize;
        assert!(out[at].is_none(), "row {at} is named twice");
        out[at] = code;
    };
    match &decide.how {
        How::Rows(rows) => {
            let all = with_rows(&data);
            let test = rows.bind(&all.schema(), &Fits::new())?;
            let mut at = 0;
            while at < all.num_rows() {
                let batch = all.slice(at, shape.batch.min(all.num_rows() - at));
                let codes: UInt32Array = test.codes(&batch)?;
                assert_eq!(codes.len(), batch.num_rows());
                let rows = batch.column_by_name(ROW).unwrap().as_primitive::<UInt64Type>();
                codes.iter().zip(rows.values()).for_each(|(code, row)| name(*row, code));
                at += batch.num_rows();
            }
        }
        How::Table(decision) => {
            let cx = TableContext {
                session: session.clone(),
                fits: Arc::new(Fits::new()),
                unit_rows: Arc::new(vec![]),
                remarks: Remarks::default(),
            };
            let readings = Arc::<AtomicU64>::default();
            let counted = Counted { table: provider(&with_rows(&data), shape), readings: readings.clone() };
            let result = decision.decide(session.read_table(Arc::new(counted))?, &cx).await?.collect().await?;
            // A progress bar that expected less would fall back.
            assert!(readings.load(Relaxed) <= decision.readings(), "{readings:?} readings, {} were announced", decision.readings());
            for batch in result {
                let rows = batch.column_by_name(ROW).unwrap().as_primitive::<UInt64Type>();
                let codes = batch.column_by_name(CODE).map(|c| c.as_primitive::<UInt32Type>());
                (0..batch.num_rows()).for_each(|i| name(rows.value(i), Some(codes.map_or(0, |c| c.value(i)))));
            }
        }
    }
    Ok(out)
}

/// The verdicts, after seeing that they are the same in every shape.
pub fn same_in_every_shape(decide: &Decide, data: &RecordBatch) -> Vec<Option<u32>> {
    let first = verdicts(decide, data, SHAPES[0]).unwrap();
    for shape in &SHAPES[1..] {
        assert_eq!(verdicts(decide, data, *shape).unwrap(), first, "{shape:?}");
    }
    first
}

/// The numbers of the rows that a decision names.
pub fn named(verdicts: &[Option<u32>]) -> Vec<usize> {
    verdicts.iter().enumerate().filter_map(|(i, v)| v.is_some().then_some(i)).collect()
}

/// Every stage's page has an example that its reader takes, and its options have a schema.
#[test]
fn pages_have_examples_that_parse() {
    for def in super::REGISTRY {
        let (_, rest) = def.page.split_once("```yaml\n").unwrap_or_else(|| panic!("{} has no example", def.name));
        let (example, _) = rest.split_once("```").unwrap();
        let example: serde_json::Value = serde_saphyr::from_str(example).unwrap_or_else(|e| panic!("{}: {e}", def.name));
        // a page shows the list of stages, with or without its key
        let stages = example.get("stages").unwrap_or(&example).as_array().cloned().unwrap_or_else(|| panic!("{}: no list", def.name));
        let mut seen = false;
        for stage in stages {
            let (name, options) = match &stage {
                serde_json::Value::String(name) => (name.clone(), serde_json::Value::Null),
                serde_json::Value::Object(map) => map.iter().next().map(|(k, v)| (k.clone(), v.clone())).unwrap(),
                other => panic!("{}: {other}", def.name),
            };
            seen |= name == def.name;
            (find(&name).unwrap().parse)(options).unwrap_or_else(|m| panic!("{}: {m:?}", def.name));
        }
        assert!(seen, "{}", def.name);
        let schema = (def.schema)(&mut schemars::SchemaGenerator::default());
        assert!(schema.as_object().is_some(), "{}", def.name);
    }
}
