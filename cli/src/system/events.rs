//! `hull events`.

use std::{
    io::{IsTerminal as _, stdout},
    time::SystemTime,
};

use anyhow::{Result, anyhow};
use hull_specs_api::v1::EventsRequest;
use hull_specs_docker::event;

use crate::{
    args::system::EventsArgs,
    connect::Manager,
    failure::refused,
    format::{List, Value, text},
    options::{keyvalue, timestamp},
    terminal::output::print,
};

/// Prints what happened and happens, a line each.
pub(crate) async fn events(manager: &Manager, args: &EventsArgs) -> Result<u8> {
    let now = SystemTime::now();
    let at = |text: &Option<String>| {
        text.as_deref().map(|text| timestamp::parse(text, now)).transpose().map_err(|why| anyhow!(why))
    };
    let terminal = stdout().is_terminal();
    let list = match args.format.as_deref() {
        None | Some("") => None,
        // A row as Docker's document has it, not only text.
        Some(format) => Some(List::new(Some(format), "", &[], terminal)?),
    };
    let request = EventsRequest {
        since: at(&args.since)?,
        until: at(&args.until)?,
        filters: keyvalue::filters(&args.filter),
    };
    let mut events = manager.system().events(request).await.map_err(refused)?.into_inner();
    while let Some(event) = events.message().await.map_err(refused)? {
        let line = match &list {
            Some(list) => list.render(&[row(&event)?])?,
            None => {
                let line = event::line(&event);
                format!("{}\n", if terminal { text::escape(&line) } else { line })
            }
        };
        print(&line)?;
    }
    Ok(0)
}

/// Docker's document; templates know some fields by Go's names too.
fn row(of: &hull_specs_api::v1::Event) -> Result<Value> {
    let document = event::Event::from(of);
    let mut row = Value::of(&document)?;
    if let Value::Object(fields) = &mut row {
        let text = |value: &Option<String>| Value::Hidden(vec![(String::new(), Value::Text(value.clone().unwrap_or_default()))]);
        let _ = text;
        for (name, json) in [("Status", "status"), ("From", "from"), ("Scope", "scope"), ("Time", "time"), ("TimeNano", "timeNano")] {
            let value = fields.iter().find(|(key, _)| key == json).map(|(_, value)| value.clone());
            fields.push((name.to_owned(), Value::Alias(Box::new(value.unwrap_or(Value::Text(String::new()))))));
        }
    }
    Ok(row)
}
