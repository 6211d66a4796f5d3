//! What templates see: JSON values whose objects keep the order of their fields, so that
//! `{{json .}}` prints what Docker's structures print.

use std::{collections::HashMap, fmt};

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{MapAccess, SeqAccess, Visitor},
};

/// A value.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Go's nil.
    Nil,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    List(Vec<Value>),
    /// A structure: its fields are known.
    Object(Vec<(String, Value)>),
    /// A map of whatever people name.
    Map(Vec<(String, Value)>),
    /// An object that templates can look in, and JSON does not show.
    Hidden(Vec<(String, Value)>),
    /// What has no value, but a type.
    Zero(Zero),
    /// A field that JSON leaves out, and templates read.
    Omitted(Box<Value>),
}

/// Types whose nothing is Go's nil.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Zero {
    List,
    Map,
    Pointer,
}

impl Value {
    /// What serializes to this.
    pub(crate) fn of(document: &impl Serialize) -> serde_json::Result<Self> {
        serde_json::from_str(&serde_json::to_string(document)?)
    }

    /// An object of text fields, sorted by name as `docker … --format json` prints them.
    pub(crate) fn row(fields: impl IntoIterator<Item = (&'static str, String)>) -> Self {
        let mut fields: Vec<_> =
            fields.into_iter().map(|(name, value)| (name.to_owned(), Self::Text(value))).collect();
        fields.sort_by(|(a, _), (b, _)| a.cmp(b));
        // Nobody can ask for it: only rows have what JSON does not show.
        fields.push((String::new(), Self::Hidden(Vec::new())));
        Self::Object(fields)
    }

    /// What `.Label "key"` looks in: not a field that JSON shows.
    pub(crate) fn push_labels(&mut self, labels: &HashMap<String, String>) {
        let Self::Object(fields) = self else { return };
        let labels = labels.iter().map(|(key, value)| (key.clone(), Self::Text(value.clone())));
        fields.push(("Label".to_owned(), Self::Hidden(labels.collect())));
    }

    /// A map, where JSON does not tell it from a structure.
    pub(crate) fn make_map(&mut self, path: &[&str]) {
        match (self, path) {
            (value @ Self::Object(_), []) => {
                if let Self::Object(fields) = value {
                    *value = Self::Map(std::mem::take(fields));
                }
            }
            (Self::Object(fields), [first, rest @ ..]) => {
                let field = fields.iter_mut().find(|(name, _)| name == first);
                field.into_iter().for_each(|(_, value)| value.make_map(rest));
            }
            _ => {}
        }
    }

    /// A field by another name, which templates know and JSON does not show.
    pub(crate) fn push_alias(&mut self, name: &str, of: &str) {
        let value = self.field(of).cloned().unwrap_or_else(|| Self::Text(String::new()));
        self.push_omitted(name, value);
    }

    /// A field that templates know and JSON does not show.
    pub(crate) fn push_omitted(&mut self, name: &str, value: Self) {
        if let Self::Object(fields) = self {
            fields.push((name.to_owned(), Self::Omitted(Box::new(value))));
        }
    }

    fn is_row(&self) -> bool {
        let Self::Object(fields) = self else { return false };
        fields.iter().any(|(_, value)| matches!(value, Self::Hidden(_)))
    }

    /// A field of an object.
    pub(crate) fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(fields) | Self::Map(fields) => {
                fields.iter().find(|(key, _)| key == name).map(|(_, value)| match value {
                    Self::Omitted(value) => value.as_ref(),
                    value => value,
                })
            }
            _ => None,
        }
    }

    /// Go's truth: what is not zero or empty.
    pub(crate) fn truth(&self) -> bool {
        match self {
            Self::Nil | Self::Zero(_) => false,
            Self::Omitted(value) => value.truth(),
            Self::Bool(value) => *value,
            Self::Int(value) => *value != 0,
            Self::Float(value) => *value != 0.0,
            Self::Text(value) => !value.is_empty(),
            Self::List(items) => !items.is_empty(),
            Self::Object(fields) => !fields.is_empty(),
            Self::Map(fields) | Self::Hidden(fields) => !fields.is_empty(),
        }
    }

    /// The document as its JSON has it: maps and lists, and what templates know besides is gone.
    pub(crate) fn raw(&self) -> Self {
        match self {
            Self::Object(fields) | Self::Map(fields) => Self::Map(
                fields
                    .iter()
                    .filter(|(_, value)| !matches!(value, Self::Hidden(_) | Self::Omitted(_)))
                    .map(|(key, value)| (key.clone(), value.raw()))
                    .collect(),
            ),
            Self::List(items) => Self::List(items.iter().map(Self::raw).collect()),
            Self::Zero(_) => Self::Nil,
            other => other.clone(),
        }
    }

    /// Go's name of the type that it would have if it came from JSON.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Float(_) => "float64",
            Self::Text(_) => "string",
            Self::List(_) | Self::Zero(Zero::List) => "[]interface {}",
            Self::Object(_) | Self::Map(_) | Self::Zero(Zero::Map) => "map[string]interface {}",
            Self::Zero(Zero::Pointer) => "interface {}",
            Self::Hidden(_) => "func(string) string",
            Self::Omitted(value) => value.type_name(),
        }
    }

    /// As JSON on one line. Rows have the escapes that Go's encoder makes for HTML, as docker's.
    pub(crate) fn json(&self) -> String {
        let text = serde_json::to_string(self).unwrap_or_default();
        if !self.is_row() {
            return text;
        }
        text.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026")
    }
}

/// Go's `%v` of a number: as few digits as tell it, with an exponent where it is large or small.
pub(crate) fn float(number: f64) -> String {
    let text = format!("{number:e}");
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    match exponent.parse::<i32>() {
        Ok(exponent) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => number.to_string(),
    }
}

/// Go's `%v`.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nil | Self::Zero(Zero::Pointer) => f.write_str("<nil>"),
            Self::Zero(Zero::List) => f.write_str("[]"),
            Self::Zero(Zero::Map) => f.write_str("map[]"),
            Self::Omitted(value) => value.fmt(f),
            Self::Bool(value) => value.fmt(f),
            Self::Int(value) => value.fmt(f),
            Self::Float(value) => f.write_str(&float(*value)),
            Self::Text(value) => f.write_str(value),
            Self::List(items) => {
                f.write_str("[")?;
                for (index, item) in items.iter().enumerate() {
                    write!(f, "{}{item}", if index > 0 { " " } else { "" })?;
                }
                f.write_str("]")
            }
            Self::Object(fields) => {
                f.write_str("{")?;
                let values = fields.iter().map(|(_, value)| value);
                let shown = values.filter(|value| !matches!(value, Self::Hidden(_)));
                for (index, value) in shown.enumerate() {
                    write!(f, "{}{value}", if index > 0 { " " } else { "" })?;
                }
                f.write_str("}")
            }
            Self::Map(fields) | Self::Hidden(fields) => {
                f.write_str("map[")?;
                let mut fields: Vec<_> = fields.iter().collect();
                fields.sort_by(|(a, _), (b, _)| a.cmp(b));
                for (index, (key, value)) in fields.iter().enumerate() {
                    write!(f, "{}{key}:{value}", if index > 0 { " " } else { "" })?;
                }
                f.write_str("]")
            }
        }
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nil | Self::Zero(_) => serializer.serialize_unit(),
            Self::Omitted(value) => value.serialize(serializer),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(value) => serializer.serialize_str(value),
            Self::List(items) => serializer.collect_seq(items),
            Self::Object(fields) | Self::Map(fields) | Self::Hidden(fields) => serializer
                .collect_map(
                    fields
                        .iter()
                        .filter(|(_, value)| !matches!(value, Self::Hidden(_) | Self::Omitted(_)))
                        .map(|(key, value)| (key, value)),
                ),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Value;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }

            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Nil)
            }

            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(Value::Bool(value))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(Value::Int(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(i64::try_from(value).map_or_else(|_| Value::Text(value.to_string()), Value::Int))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(Value::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<Value, E> {
                Ok(Value::Text(value.to_owned()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = items.next_element()? {
                    list.push(item);
                }
                Ok(Value::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = entries.next_entry()? {
                    fields.push(field);
                }
                Ok(Value::Object(fields))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_keeps_its_order_and_prints_as_go_prints() {
        let json = r#"{"b":[1,2.5,"x"],"a":null,"c":{"z":true,"y":"<n>"}}"#;
        let value: Value = serde_json::from_str(json).unwrap();
        assert_eq!(value.json(), json);
        assert_eq!(value.to_string(), "{[1 2.5 x] <nil> {true <n>}}");
        assert_eq!(value.raw().to_string(), "map[a:<nil> b:[1 2.5 x] c:map[y:<n> z:true]]");
        assert_eq!(Value::row([("A", "<b>".into())]).json(), r#"{"A":"\u003cb\u003e"}"#);
        assert!(!value.field("a").unwrap().truth() && value.field("b").unwrap().truth());
    }
}
