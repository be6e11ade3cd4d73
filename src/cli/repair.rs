//! `kappa repair`: reads everything, and gives up what is damaged if told to.

use super::Status;
use super::args::Repair;
use super::context::Context;
use super::printer::Printer;
use crate::error::Result;
use crate::log::{Damage, LostOffsets};
use serde_json::{Value, json};

pub(super) fn run(context: &Context, args: Repair) -> Result<Status> {
    let log = context.open_log()?;
    let damage = if args.accept_loss { log.accept_loss()? } else { log.find_damage()? };
    context.close(log)?;
    show(&context.printer(&args.show), &damage)?;
    let count = damage.len();
    match (count, args.accept_loss) {
        (0, _) => context.talk("nothing is damaged that was not accepted"),
        (_, true) => context.talk(&format!("accepted as lost: {count} (nothing was deleted)")),
        (_, false) => {
            context.talk(&format!(
                "damaged: {count}; `kappa repair --accept-loss` gives them up, so that readers pass them"
            ));
            return Ok(Status::Damaged);
        }
    }
    Ok(Status::Done)
}

/// One row for each stretch of offsets; one without for damage that is not known to hold any.
fn show(printer: &Printer, damage: &[Damage]) -> Result<()> {
    let row = |damage: &Damage, lost: Option<&LostOffsets>| {
        let topic = lost.map(|lost| lost.name.clone().unwrap_or_else(|| lost.topic.to_string()));
        let number = |of: fn(&LostOffsets) -> u64| lost.map_or(Value::Null, |lost| json!(of(lost)));
        vec![
            json!(damage.kind),
            json!(damage.file),
            json!(damage.positions.0.0),
            json!(damage.positions.1.0),
            json!(topic),
            number(|lost| u64::from(lost.partition.0)),
            number(|lost| lost.offsets.0.0),
            number(|lost| lost.offsets.1.0),
            lost.map_or(Value::Null, |lost| json!(lost.certain)),
        ]
    };
    let rows: Vec<_> = damage
        .iter()
        .flat_map(|damage| match &damage.offsets[..] {
            [] => vec![row(damage, None)],
            offsets => offsets.iter().map(|lost| row(damage, Some(lost))).collect(),
        })
        .collect();
    let columns = ["lost", "file", "position", "position_end", "topic", "partition", "offset", "offset_end", "certain"];
    printer.table(&columns, &rows)
}
