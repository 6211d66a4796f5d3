//! Lists: a table of some columns, a template for each row, or JSON lines.

use anyhow::{Result, anyhow};

use super::{Template, Value, tabwriter, text};

/// A list that was asked for: how its rows are written.
pub(crate) struct List<'a> {
    template: Template,
    /// A table has a heading; of a row nothing is asked but its text.
    table: bool,
    /// The names of fields, with their headings.
    headings: &'a [(&'static str, &'static str)],
    escape: bool,
}

impl<'a> List<'a> {
    /// Understands `--format`; `columns` are the table's without one.
    pub(crate) fn new(
        format: Option<&str>,
        columns: &str,
        headings: &'a [(&'static str, &'static str)],
        escape: bool,
    ) -> Result<Self> {
        let (table, source) = match format.unwrap_or("table").trim() {
            "" | "table" => (true, columns.to_owned()),
            "json" => (false, "{{json .}}".to_owned()),
            other => match other.strip_prefix("table") {
                Some(columns) => (true, unescape(columns.trim())),
                None => (false, unescape(other)),
            },
        };
        let template =
            Template::parse(&source).map_err(|why| anyhow!("template parsing error: {why}"))?;
        Ok(Self { template, table, headings, escape })
    }

    /// Whether a field is printed.
    pub(crate) fn uses(&self, field: &str) -> bool {
        self.template.uses(field)
    }

    /// The whole list.
    pub(crate) fn render(&self, rows: &[Value]) -> Result<String> {
        let show = |value: String| if self.escape { text::escape(&value) } else { value };
        // A cell must not end the line or the cell.
        let cell = |value: String| show(value).replace(['\n', '\t'], " ");
        let mut lines = String::new();
        if self.table {
            let heading = |name: &str| {
                let known = self.headings.iter().find(|(field, _)| *field == name);
                known.map_or_else(|| name.to_uppercase(), |(_, heading)| (*heading).to_owned())
            };
            // What is wrong with a template is told with the rows.
            lines.push_str(&self.template.heading(&heading).unwrap_or_default());
            lines.push('\n');
        }
        let shown: &dyn Fn(String) -> String = if self.table { &cell } else { &show };
        for row in rows {
            let line = self.template.render(row, shown);
            lines.push_str(&line.map_err(|why| anyhow!("template parsing error: {why}"))?);
            lines.push('\n');
        }
        Ok(if self.table { tabwriter::align(&lines, 10, 3) } else { lines })
    }
}

/// The format that `--format` and `--quiet` ask for. `raw` are the names of docker's old form and
/// their fields, of which the first is all that `--quiet` shows.
pub(crate) fn chosen(format: Option<&str>, quiet: bool, raw: &[(&str, &str)]) -> Option<String> {
    let line = |(name, field): &(&str, &str)| format!("{name}:{{{{pad .{field} 1 0}}}}");
    match (format, quiet, raw.first()) {
        (Some("raw"), true, Some(first)) => Some(line(first)),
        (Some("raw"), false, _) => {
            let lines: Vec<_> = raw.iter().map(line).collect();
            Some(format!("{}{{{{`\n`}}}}", lines.join("\n")))
        }
        (_, true, Some((_, field))) => Some(format!("{{{{.{field}}}}}")),
        (format, ..) => format.map(str::to_owned),
    }
}

/// `\t` and `\n` of a shell's single quotes, as docker takes them.
fn unescape(format: &str) -> String {
    format.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADINGS: &[(&str, &str)] = &[("ID", "CONTAINER ID"), ("Names", "NAMES")];

    fn rows() -> Vec<Value> {
        vec![
            Value::row([("Names", "one".to_owned()), ("ID", "7e39672e9ba2".to_owned())]),
            Value::row([("Names", "t\u{1b}o".to_owned()), ("ID", "72800b4a83a5".to_owned())]),
        ]
    }

    #[test]
    fn formats() {
        let columns = "{{.ID}}\t{{.Names}}";
        for (format, text) in [
            (None, "CONTAINER ID   NAMES\n7e39672e9ba2   one\n72800b4a83a5   t\\x1bo\n"),
            (
                Some("table {{.Names}}\\t{{.ID}}"),
                "NAMES     CONTAINER ID\none       7e39672e9ba2\nt\\x1bo    72800b4a83a5\n",
            ),
            (Some("table {{.Names | upper}}"), "NAMES\nONE\nT\\x1bO\n"),
            (Some("{{.ID}}"), "7e39672e9ba2\n72800b4a83a5\n"),
            (
                Some("json"),
                "{\"ID\":\"7e39672e9ba2\",\"Names\":\"one\"}\n{\"ID\":\"72800b4a83a5\",\"Names\":\"t\\u001bo\"}\n",
            ),
        ] {
            let list = List::new(format, columns, HEADINGS, true).unwrap();
            assert_eq!(list.render(&rows()).unwrap(), text);
        }
        assert!(List::new(Some("{{.ID"), "", HEADINGS, true).is_err());
        let wrong = List::new(Some("{{.X}}"), "", HEADINGS, true).unwrap();
        assert!(wrong.render(&rows()).is_err());
    }

    #[test]
    fn the_old_form_names_each_field() {
        let raw = [("container_id", "ID"), ("names", "Names"), ("ports", "Ports")];
        let row = || {
            let text = |text: &str| text.to_owned();
            Value::row([("ID", text("7e3")), ("Names", text("one")), ("Ports", String::new())])
        };
        for (format, quiet, text) in [
            (Some("raw"), false, "container_id: 7e3\nnames: one\nports:\n\n"),
            (Some("raw"), true, "container_id: 7e3\n"),
            (None, true, "7e3\n"),
            (Some("{{.Names}}"), true, "7e3\n"),
            (Some("{{.Names}}"), false, "one\n"),
        ] {
            let format = chosen(format, quiet, &raw);
            let list = List::new(format.as_deref(), "", HEADINGS, false).unwrap();
            assert_eq!(list.render(&[row()]).unwrap(), text);
        }
    }

    #[test]
    fn a_table_without_rows_has_its_heading() {
        let list = List::new(None, "{{.ID}}\t{{.Names}}", HEADINGS, false).unwrap();
        assert_eq!(list.render(&[]).unwrap(), "CONTAINER ID   NAMES\n");
    }
}
