//! `hull events`.

use std::{
    io::{IsTerminal as _, stdout},
    time::SystemTime,
};

use anyhow::{Result, anyhow};
use hull_specs_api::v1::{self, EventsRequest};
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
        text.as_deref()
            .map(|text| timestamp::parse(text, now))
            .transpose()
            .map_err(|why| anyhow!(why))
    };
    let terminal = stdout().is_terminal();
    let list = match args.format.as_deref() {
        None | Some("") => None,
        Some(format) => Some(List::new(Some(format), "", &[], terminal)?),
    };
    // JSON is the document alone.
    let names_of_go = !args.format.as_deref().unwrap_or_default().contains("json");
    let request = EventsRequest {
        since: at(&args.since)?,
        until: at(&args.until)?,
        filters: keyvalue::filters(&args.filter),
    };
    let mut events = manager.system().events(request).await.map_err(refused)?.into_inner();
    while let Some(event) = events.message().await.map_err(refused)? {
        let line = match &list {
            Some(list) => list.render(&[row(&event, names_of_go)?])?,
            None => {
                let line = event::line(&event);
                format!("{}\n", if terminal { text::escape(&line) } else { line })
            }
        };
        print(&line)?;
    }
    Ok(0)
}

/// Docker's document; templates know some of its fields by Go's names too.
fn row(of: &v1::Event, names_of_go: bool) -> Result<Value> {
    let mut row = Value::of(&event::Event::from(of))?;
    if let (Value::Object(fields), true) = (&mut row, names_of_go) {
        let names = [
            ("Status", "status"),
            ("ID", "id"),
            ("From", "from"),
            ("Scope", "scope"),
            ("Time", "time"),
            ("TimeNano", "timeNano"),
        ];
        for (name, json) in names {
            let value = fields.iter().find(|(key, _)| key == json).map(|(_, value)| value.clone());
            fields.push((name.to_owned(), value.unwrap_or_else(|| Value::Text(String::new()))));
        }
    }
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_name_fields_as_go_does() {
        let of = v1::Event {
            r#type: "container".into(),
            action: "die".into(),
            actor: "6ad3".into(),
            attributes: [("exitCode".to_owned(), "3".to_owned())].into(),
            ..v1::Event::default()
        };
        let list = List::new(
            Some("{{.Type}} {{.Action}} {{.Status}} {{.ID}} {{.Actor.Attributes.exitCode}}"),
            "",
            &[],
            false,
        );
        assert_eq!(
            list.unwrap().render(&[row(&of, true).unwrap()]).unwrap(),
            "container die die 6ad3 3\n"
        );
    }
}
