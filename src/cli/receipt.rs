//! `kappa receipt`: what a run computed, from what and with what, in digests.

use super::Status;
use super::args::ReceiptArgs;
use super::context::Context;
use crate::error::Result;
use crate::job::{self, Receipt};
use serde_json::{Value, json};

pub(super) fn run(context: &Context, args: ReceiptArgs) -> Result<Status> {
    let printer = context.printer(&args.show);
    let log = context.open_log()?;
    let job = context.load_any(&log, &args.file, args.version)?;
    let receipt = job::receipt(&log, &job, &context.recomputing("reading", &log)?)?;
    if printer.is_json() {
        context.show_json(&as_json(&receipt))?;
    } else {
        printer.table(&["what", "name", "records", "digest"], &as_rows(&receipt))?;
    }
    context.close(log)?;
    Ok(Status::Done)
}

fn hex(digest: u64) -> String {
    format!("{digest:016x}")
}

fn as_json(receipt: &Receipt) -> Value {
    let inputs = receipt.inputs.iter().map(|input| {
        let offsets = input.offsets.iter();
        let offsets =
            offsets.map(|(partition, range)| json!({"partition": partition, "from": range.start, "to": range.end}));
        json!({
            "topic": input.topic,
            "offsets": offsets.collect::<Vec<_>>(),
            "records": input.records,
            "digest": hex(input.digest),
        })
    });
    let outputs = receipt
        .outputs
        .iter()
        .map(|output| json!({"topic": output.name, "rows": output.written.rows, "digest": hex(output.written.digest)}));
    let functions = receipt.functions.iter().map(|(name, version)| json!({"name": name, "version": version}));
    json!({
        "run": receipt.run,
        "kappa": receipt.kappa,
        "plan": hex(receipt.plan_digest),
        "functions": functions.collect::<Vec<_>>(),
        "final": receipt.is_final,
        "flushed": receipt.is_flushed,
        "publish_from_ms": receipt.publish_from_ms,
        "inputs": inputs.collect::<Vec<_>>(),
        "outputs": outputs.collect::<Vec<_>>(),
        "digest": hex(receipt.digest),
    })
}

fn as_rows(receipt: &Receipt) -> Vec<Vec<Value>> {
    let mut rows = vec![vec![json!("plan"), json!(receipt.run), Value::Null, json!(hex(receipt.plan_digest))]];
    let functions = receipt.functions.iter();
    rows.extend(functions.map(|(name, version)| vec![json!("function"), json!(name), Value::Null, json!(version)]));
    let inputs = receipt.inputs.iter();
    rows.extend(
        inputs.map(|input| vec![json!("input"), json!(input.topic), json!(input.records), json!(hex(input.digest))]),
    );
    let outputs = receipt.outputs.iter();
    rows.extend(outputs.map(|output| {
        vec![json!("output"), json!(output.name), json!(output.written.rows), json!(hex(output.written.digest))]
    }));
    let how = match (receipt.is_final, receipt.is_flushed) {
        (false, _) => "not at its end",
        (true, false) => "final, open windows held back",
        (true, true) => "final",
    };
    rows.push(vec![json!("receipt"), json!(how), Value::Null, json!(hex(receipt.digest))]);
    rows
}
