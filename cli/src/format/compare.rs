//! What is equal, and what is less, in Go's templates.

use super::{Value, value::Zero};

const INCOMPATIBLE: &str = "incompatible types for comparison";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Basic {
    Bool,
    Int,
    Float,
    Text,
}

fn basic(value: &Value) -> Option<Basic> {
    match value {
        Value::Bool(_) => Some(Basic::Bool),
        Value::Int(_) => Some(Basic::Int),
        Value::Float(_) => Some(Basic::Float),
        Value::Text(_) => Some(Basic::Text),
        _ => None,
    }
}

fn is_nil(value: &Value) -> bool {
    matches!(value, Value::Nil | Value::Zero(_))
}

/// `eq`: whether the first is any of the others.
pub(super) fn equals_any(first: &Value, others: &[Value]) -> Result<bool, String> {
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for other in others {
        if equals(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether two are the same. Whole numbers and others are not compared, as in Go.
pub(super) fn equals(a: &Value, b: &Value) -> Result<bool, String> {
    for value in [a, b] {
        let is_compared = basic(value).is_some() || is_nil(value);
        if !is_compared && !is_nil(a) && !is_nil(b) {
            return Err(format!("non-comparable type {value}: {}", value.type_name()));
        }
    }
    // Nil is equal to what is nil, whatever its type.
    if *a == Value::Nil || *b == Value::Nil || matches!(a, Value::Zero(Zero::Pointer)) {
        return Ok(is_nil(a) && is_nil(b));
    }
    if basic(a) != basic(b) {
        return Err(INCOMPATIBLE.to_owned());
    }
    Ok(a == b)
}

/// Whether one is less than the other.
pub(super) fn less(a: &Value, b: &Value) -> Result<bool, String> {
    const INVALID: &str = "invalid type for comparison";
    let (Some(kind), Some(other)) = (basic(a), basic(b)) else {
        return Err(INVALID.to_owned());
    };
    if kind != other {
        return Err(INCOMPATIBLE.to_owned());
    }
    match (a, b) {
        (Value::Int(a), Value::Int(b)) => Ok(a < b),
        (Value::Float(a), Value::Float(b)) => Ok(a < b),
        (Value::Text(a), Value::Text(b)) => Ok(a < b),
        _ => Err(INVALID.to_owned()),
    }
}
