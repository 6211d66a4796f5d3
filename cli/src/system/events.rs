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
    failure::{ended, refused},
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
    // Without a last moment there is no end but the manager's.
    if args.until.is_none() { Err(ended(&manager.host, 1)) } else { Ok(0) }
}

/// Docker's document; templates know some of its fields by Go's names.
fn row(of: &v1::Event) -> Result<Value> {
    let mut row = Value::of(&event::Event::from(of))?;
    row.make_map(&["Actor", "Attributes"]);
    for (name, json) in [
        ("Status", "status"),
        ("ID", "id"),
        ("From", "from"),
        ("Scope", "scope"),
        ("Time", "time"),
        ("TimeNano", "timeNano"),
    ] {
        row.push_alias(name, json);
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
            Some(
                "{{.Type}} {{.Action}} {{.Status}} {{.ID}} {{.From}} {{.Actor.Attributes.exitCode}} {{.Actor.Attributes.none}}",
            ),
            "",
            &[],
            false,
        );
        assert_eq!(
            list.unwrap().render(&[row(&of).unwrap()]).unwrap(),
            "container die die 6ad3  3 <no value>\n"
        );
        let document = Value::of(&event::Event::from(&of)).unwrap().json();
        assert_eq!(row(&of).unwrap().json(), document);
    }
}
