//! Whether an API server would compile a CEL expression over claims or a user.
//!
//! Syntax, variables, fields, functions and, as far as it shows, the kind of the result are checked;
//! the arguments of functions are not.

use cel::common::ast::{CallExpr, EntryExpr, Expr, LiteralValue};
use cel::parser::Parser;
use cel::{IdedExpr, ParseErrors};

/// What an expression is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Variable {
    /// `claims`, of any names.
    Claims,
    /// `user`.
    User,
}

/// What an expression must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A string, or a list of them, or whatever a claim is.
    Text,
    /// True or false, and for sure.
    Truth,
}

/// Why an API server would not compile an expression.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[expect(missing_docs, reason = "the messages say what each field holds")]
pub enum InvalidExpression {
    #[error("{text:?} is no CEL: {reason}")]
    Syntax { text: String, reason: String },
    #[error("{text:?} knows nothing called {name}; there is only {known}")]
    Unknown {
        text: String,
        name: String,
        known: &'static str,
    },
    #[error("{text:?} uses the function {name}, which API servers do not have")]
    Function { text: String, name: String },
    #[error("{0:?} must come to true or false, such as claims.a == true")]
    NoTruth(String),
    #[error("{0:?} must come to a text or a list of texts")]
    NoText(String),
}

/// Fields of `user` (`k8s.io/apiserver/pkg/authentication/cel/compile.go`, `buildUserType`).
const USER_FIELDS: [&str; 4] = ["username", "uid", "groups", "extra"];

/// Prefixes of functions that look like variables.
const NAMESPACES: [&str; 5] = ["format", "ip", "jsonpatch", "optional", "sets"];

/// Functions of every supported minor (`k8s.io/apiserver/pkg/cel/environment/base.go`).
const FUNCTIONS: &[&str] = &[
    "add",
    "asApproximateFloat",
    "asInteger",
    "bool",
    "bytes",
    "charAt",
    "cidr",
    "compareTo",
    "contains",
    "containsCIDR",
    "containsIP",
    "date",
    "datetime",
    "double",
    "duration",
    "dyn",
    "endsWith",
    "equivalent",
    "escapeKey",
    "family",
    "find",
    "findAll",
    "format",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getEscapedPath",
    "getFullYear",
    "getHost",
    "getHostname",
    "getHours",
    "getMilliseconds",
    "getMinutes",
    "getMonth",
    "getPort",
    "getQuery",
    "getScheme",
    "getSeconds",
    "hasValue",
    "indexOf",
    "int",
    "intersects",
    "ip",
    "isCIDR",
    "isCanonical",
    "isGlobalUnicast",
    "isGreaterThan",
    "isIP",
    "isInteger",
    "isLessThan",
    "isLinkLocalMulticast",
    "isLinkLocalUnicast",
    "isLoopback",
    "isQuantity",
    "isSorted",
    "isURL",
    "isUnspecified",
    "join",
    "lastIndexOf",
    "lowerAscii",
    "masked",
    "matches",
    "max",
    "min",
    "named",
    "none",
    "of",
    "ofNonZeroValue",
    "or",
    "orValue",
    "prefixLength",
    "quantity",
    "replace",
    "sign",
    "size",
    "split",
    "startsWith",
    "string",
    "sub",
    "substring",
    "sum",
    "timestamp",
    "trim",
    "type",
    "uint",
    "upperAscii",
    "uri",
    "url",
    "validate",
    "value",
];

/// An expression that an API server would compile.
pub(super) struct Expression(IdedExpr);

impl Expression {
    pub(super) fn parse(
        text: &str,
        variable: Variable,
        wanted: Wanted,
    ) -> Result<Self, InvalidExpression> {
        let parsed = Parser::new().enable_optional_syntax(true).parse(text);
        let parsed = parsed.map_err(|errors| InvalidExpression::Syntax {
            text: text.to_owned(),
            reason: first(&errors),
        })?;
        let check = Check { text, variable };
        check.names(&parsed, &mut Vec::new())?;
        match (wanted, kind(&parsed)) {
            (Wanted::Truth, Kind::Any | Kind::Text | Kind::Other) => {
                Err(InvalidExpression::NoTruth(text.to_owned()))
            }
            (Wanted::Text, Kind::Truth | Kind::Other) => {
                Err(InvalidExpression::NoText(text.to_owned()))
            }
            _ => Ok(Self(parsed)),
        }
    }

    /// Whether it reads `claims.<field>`.
    pub(super) fn selects(&self, field: &str) -> bool {
        selects(&self.0, field)
    }
}

fn first(errors: &ParseErrors) -> String {
    let text = errors.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

/// What an expression comes to, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Truth,
    Text,
    /// Whatever a claim is.
    Any,
    /// Surely neither a text nor a truth.
    Other,
    /// It depends on a function.
    Unknown,
}

fn kind(expression: &IdedExpr) -> Kind {
    match &expression.expr {
        Expr::Literal(LiteralValue::Boolean(_)) => Kind::Truth,
        Expr::Literal(LiteralValue::String(_)) | Expr::List(_) => Kind::Text,
        Expr::Literal(_) | Expr::Map(_) | Expr::Struct(_) | Expr::Ident(_) => Kind::Other,
        Expr::Select(select) if select.test => Kind::Truth,
        Expr::Select(_) => Kind::Any,
        Expr::Call(call) => kind_of_call(call),
        Expr::Comprehension(_) | Expr::Unspecified => Kind::Unknown,
    }
}

fn kind_of_call(call: &CallExpr) -> Kind {
    match (call.func_name.as_str(), call.args.as_slice()) {
        (
            "_==_" | "_!=_" | "_<_" | "_<=_" | "_>_" | "_>=_" | "_&&_" | "_||_" | "!_" | "@in"
            | "startsWith" | "endsWith" | "contains" | "matches" | "hasValue",
            _,
        ) => Kind::Truth,
        ("_[_]", _) => Kind::Any,
        ("size" | "int" | "uint" | "double", _) => Kind::Other,
        ("_?_:_", [_, yes, no]) => match (kind(yes), kind(no)) {
            (yes, no) if yes == no => yes,
            _ => Kind::Unknown,
        },
        _ => Kind::Unknown,
    }
}

struct Check<'a> {
    text: &'a str,
    variable: Variable,
}

impl Check<'_> {
    /// `bound` are the variables of the comprehensions around it.
    fn names<'e>(
        &self,
        expression: &'e IdedExpr,
        bound: &mut Vec<&'e str>,
    ) -> Result<(), InvalidExpression> {
        match &expression.expr {
            Expr::Ident(name) => self.ident(name, bound),
            Expr::Select(select) => {
                let of_user = matches!(&select.operand.expr, Expr::Ident(name)
                    if name == "user" && !bound.contains(&"user"));
                if of_user
                    && self.variable == Variable::User
                    && !USER_FIELDS.contains(&select.field.as_str())
                {
                    let name = format!("user.{}", select.field);
                    return Err(self.unknown(name, "user.username, uid, groups and extra"));
                }
                self.names(&select.operand, bound)
            }
            Expr::Call(call) => self.call(call, bound),
            Expr::Comprehension(comprehension) => {
                self.names(&comprehension.iter_range, bound)?;
                self.names(&comprehension.accu_init, bound)?;
                let outside = bound.len();
                bound.extend([&*comprehension.iter_var, &*comprehension.accu_var]);
                bound.extend(comprehension.iter_var2.as_deref());
                self.names(&comprehension.loop_cond, bound)?;
                self.names(&comprehension.loop_step, bound)?;
                self.names(&comprehension.result, bound)?;
                bound.truncate(outside);
                Ok(())
            }
            Expr::List(list) => list
                .elements
                .iter()
                .try_for_each(|element| self.names(element, bound)),
            Expr::Map(map) => map
                .entries
                .iter()
                .try_for_each(|entry| self.entry(&entry.expr, bound)),
            Expr::Struct(object) => Err(self.unknown(object.type_name.clone(), self.known())),
            Expr::Literal(_) | Expr::Unspecified => Ok(()),
        }
    }

    fn entry<'e>(
        &self,
        entry: &'e EntryExpr,
        bound: &mut Vec<&'e str>,
    ) -> Result<(), InvalidExpression> {
        match entry {
            EntryExpr::StructField(field) => self.names(&field.value, bound),
            EntryExpr::MapEntry(entry) => {
                self.names(&entry.key, bound)?;
                self.names(&entry.value, bound)
            }
        }
    }

    fn ident(&self, name: &str, bound: &[&str]) -> Result<(), InvalidExpression> {
        let known = name == self.known() || name.starts_with('@') || bound.contains(&name);
        known
            .then_some(())
            .ok_or_else(|| self.unknown(name.to_owned(), self.known()))
    }

    fn call<'e>(
        &self,
        call: &'e CallExpr,
        bound: &mut Vec<&'e str>,
    ) -> Result<(), InvalidExpression> {
        let name = call.func_name.as_str();
        let is_operator = !name.starts_with(|c: char| c.is_ascii_alphabetic());
        if !is_operator && !FUNCTIONS.contains(&name) {
            return Err(InvalidExpression::Function {
                text: self.text.to_owned(),
                name: name.to_owned(),
            });
        }
        if let Some(target) = &call.target {
            let is_prefix =
                matches!(&target.expr, Expr::Ident(name) if NAMESPACES.contains(&&**name));
            if !is_prefix {
                self.names(target, bound)?;
            }
        }
        call.args
            .iter()
            .try_for_each(|argument| self.names(argument, bound))
    }

    fn known(&self) -> &'static str {
        match self.variable {
            Variable::Claims => "claims",
            Variable::User => "user",
        }
    }

    fn unknown(&self, name: String, known: &'static str) -> InvalidExpression {
        InvalidExpression::Unknown {
            text: self.text.to_owned(),
            name,
            known,
        }
    }
}

/// As kube-apiserver looks for it (`validation.go`, `hasSelectExp`).
fn selects(expression: &IdedExpr, field: &str) -> bool {
    let is_claims = |of: &IdedExpr| matches!(&of.expr, Expr::Ident(name) if name == "claims");
    let any = |list: &[IdedExpr]| list.iter().any(|each| selects(each, field));
    match &expression.expr {
        Expr::Select(select) => {
            (select.field == field && is_claims(&select.operand)) || selects(&select.operand, field)
        }
        Expr::Call(call) => {
            let optional = matches!((call.func_name.as_str(), call.args.as_slice()),
                ("_?._", [of, IdedExpr { expr: Expr::Literal(LiteralValue::String(name)), .. }])
                    if is_claims(of) && name.inner() == field);
            let target = call.target.as_deref();
            optional || any(&call.args) || target.is_some_and(|target| selects(target, field))
        }
        Expr::List(list) => any(&list.elements),
        Expr::Map(map) => map.entries.iter().any(|entry| match &entry.expr {
            EntryExpr::StructField(entry) => selects(&entry.value, field),
            EntryExpr::MapEntry(entry) => {
                selects(&entry.key, field) || selects(&entry.value, field)
            }
        }),
        Expr::Comprehension(each) => [
            &each.iter_range,
            &each.accu_init,
            &each.loop_cond,
            &each.loop_step,
            &each.result,
        ]
        .into_iter()
        .any(|part| selects(part, field)),
        Expr::Ident(_) | Expr::Literal(_) | Expr::Struct(_) | Expr::Unspecified => false,
    }
}
