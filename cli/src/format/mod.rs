//! Output: values, Go's templates over them, tables. What containers and images named is escaped
//! on a terminal (R26).

mod compare;
pub(crate) mod fields;
mod function;
mod lexer;
pub(crate) mod list;
mod literal;
pub(crate) mod order;
mod parser;
mod printf;
pub(crate) mod tabwriter;
pub(crate) mod template;
pub(crate) mod text;
mod tree;
pub(crate) mod value;

pub(crate) use list::List;
pub(crate) use template::Template;
pub(crate) use value::Value;
