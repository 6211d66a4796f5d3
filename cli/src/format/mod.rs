//! Output: values, Go's templates over them, tables. What containers and images named is escaped
//! on a terminal (R26).

pub(crate) mod fields;
pub(crate) mod function;
mod lexer;
pub(crate) mod list;
pub(crate) mod order;
mod parser;
pub(crate) mod tabwriter;
pub(crate) mod template;
pub(crate) mod text;
pub(crate) mod value;

pub(crate) use list::List;
pub(crate) use template::Template;
pub(crate) use value::Value;
