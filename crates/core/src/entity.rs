//! What a stored noun tells its stores: its name, its columns, what is unique, what it refers to.

use std::fmt;
use std::marker::PhantomData;

use chrono::{DateTime, Utc};

use crate::{Error, Id};

/// A noun that a [`Store`](crate::Store) keeps.
///
/// - A plain value: the id, the version, the times and the tenant are the store's business ([`Stored`]).
/// - Declared by [`entity!`](crate::entity), which a generic store needs in order to filter, to keep unique
///   values unique and references whole, without knowing the noun.
pub trait Entity: Clone + fmt::Debug + Send + Sync + Sized + 'static {
    /// The noun in messages, such as `ticket`.
    const NAME: &'static str;
    /// The table that holds it, such as `tickets`.
    const TABLE: &'static str;
    /// Every column that can be filtered on.
    const COLUMNS: &'static [Column<Self>];
    /// Groups of columns whose values are unique within a tenant; a group with a null in it never clashes, unless
    /// [`NULLS_EQUAL`](Entity::NULLS_EQUAL) says so.
    const UNIQUE: &'static [&'static [Column<Self>]];
    /// Whether in those groups a null is a value like any other, so that two with it clash.
    const NULLS_EQUAL: bool;
    /// Columns that hold the id of another entity of the same tenant.
    const REFERENCES: &'static [Reference<Self>];

    /// Checks the value alone; a store calls it before it writes.
    fn validate(&self) -> Result<(), Invalid>;
}

/// An entity that may be written through [`Store`](crate::Store).
///
/// Those without it are written by a purpose-built port only, since an invariant spans their rows: runs and
/// attempts, whose states are changed by the [`Queue`](crate::ports::Queue).
pub trait Editable: Entity {}

/// A rule that a value breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {rule}")]
pub struct Invalid {
    /// The field, by its column's name.
    pub field: &'static str,
    /// The rule, in words that say what to do.
    pub rule: String,
}

impl Invalid {
    /// A broken rule of a field.
    pub fn new(field: &'static str, rule: impl Into<String>) -> Self {
        Self { field, rule: rule.into() }
    }

    /// The error of a store that was given the value.
    pub fn refused(self, operation: &'static str, noun: &'static str) -> Error {
        Error::invalid(operation, format!("this {noun} cannot be stored: {self}"))
    }

    /// Checks that a text has between `min` and `max` characters, counted without surrounding blanks.
    pub fn text(field: &'static str, text: &str, min: usize, max: usize) -> Result<(), Self> {
        let length = text.trim().chars().count();
        if length < min || text.chars().count() > max {
            return Err(Self::new(field, format!("must have {min} to {max} characters, it has {length}")));
        }
        Ok(())
    }

    /// Checks that a text can be stored: no NUL character, which PostgreSQL refuses.
    pub fn no_nul(field: &'static str, text: &str) -> Result<(), Self> {
        if text.contains('\0') {
            return Err(Self::new(field, "must not contain the NUL character"));
        }
        Ok(())
    }
}

/// A value as it stands in the database.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Value {
    /// SQL's null: equal to nothing, except in [`Condition::Null`].
    Null,
    /// `BOOLEAN`.
    Bool(bool),
    /// `SMALLINT`, `INT` or `BIGINT`.
    Int(i64),
    /// `TEXT` or `CITEXT`.
    Text(String),
    /// `TIMESTAMPTZ`.
    Time(DateTime<Utc>),
}

impl<E: ?Sized> From<Id<E>> for Value {
    fn from(id: Id<E>) -> Self {
        Self::Int(id.raw())
    }
}
impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Bool(flag)
    }
}
impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Int(number)
    }
}
impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self::Int(number.into())
    }
}
impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}
impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}
impl From<DateTime<Utc>> for Value {
    fn from(time: DateTime<Utc>) -> Self {
        Self::Time(time)
    }
}
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

/// A column of an entity: its name in the database, and how to read it off the value.
pub struct Column<E> {
    /// The name in the table.
    pub name: &'static str,
    /// The value in the database's terms.
    pub value: fn(&E) -> Value,
}

impl<E> Clone for Column<E> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<E> Copy for Column<E> {}
impl<E> fmt::Debug for Column<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A column and the type of its values, so that a filter of the wrong type does not compile.
pub struct Field<E, T> {
    /// The column.
    pub column: Column<E>,
    values: PhantomData<fn(T)>,
}

impl<E, T> Clone for Field<E, T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<E, T> Copy for Field<E, T> {}
impl<E, T> fmt::Debug for Field<E, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.column.fmt(f)
    }
}

impl<E, T> Field<E, T> {
    /// A field of this column.
    pub const fn new(name: &'static str, value: fn(&E) -> Value) -> Self {
        Self { column: Column { name, value }, values: PhantomData }
    }
}

impl<E, T: Into<Value>> Field<E, T> {
    /// Those whose value is this one.
    pub fn eq(self, value: impl Into<T>) -> Condition<E> {
        Condition::AnyOf(self.column, vec![value.into().into()])
    }

    /// Those whose value is one of these; none, for an empty list.
    pub fn any_of(self, values: impl IntoIterator<Item = T>) -> Condition<E> {
        Condition::AnyOf(self.column, values.into_iter().map(Into::into).collect())
    }

    /// Those without a value.
    pub fn is_null(self) -> Condition<E> {
        Condition::Null(self.column)
    }
}

/// One condition of a query.
#[derive(Debug, Clone)]
pub enum Condition<E> {
    /// The column has one of these values; a null never matches.
    AnyOf(Column<E>, Vec<Value>),
    /// The column is null.
    Null(Column<E>),
}

impl<E> Condition<E> {
    /// Whether the value meets the condition, as the database would say.
    pub fn holds(&self, entity: &E) -> bool {
        match self {
            Self::AnyOf(column, values) => {
                let value = (column.value)(entity);
                value != Value::Null && values.contains(&value)
            }
            Self::Null(column) => (column.value)(entity) == Value::Null,
        }
    }
}

/// A column that holds the id of another entity.
#[derive(Debug)]
pub struct Reference<E> {
    /// The column.
    pub column: Column<E>,
    /// The other entity's name.
    pub target: &'static str,
    /// What happens to this row when the other goes.
    pub on_delete: OnDelete<E>,
}

/// What happens to a row when the row that it refers to is deleted.
pub enum OnDelete<E> {
    /// The delete is refused with [`ErrorKind::Conflict`](crate::ErrorKind::Conflict).
    Restrict,
    /// This row goes too.
    Cascade,
    /// This row stays, and the column becomes null, which this function does to the value.
    SetNull(fn(&mut E)),
}

impl<E> fmt::Debug for OnDelete<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Restrict => "Restrict",
            Self::Cascade => "Cascade",
            Self::SetNull(_) => "SetNull",
        })
    }
}

/// A value, with what its store keeps beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<E> {
    /// The id.
    pub id: Id<E>,
    /// Counts the updates from 1; [`Store::update`](crate::Store::update) succeeds only on the newest.
    pub version: i64,
    /// When it was inserted, on the database's clock.
    pub created_at: DateTime<Utc>,
    /// When it was last updated, on the database's clock.
    pub updated_at: DateTime<Utc>,
    /// The value.
    pub value: E,
}

impl<E> std::ops::Deref for Stored<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.value
    }
}

/// Declares an [`Entity`]: its name and table, its fields as typed constants, unique groups and references.
///
/// ```
/// use lime_core::{Entity, Invalid, entity};
///
/// #[derive(Debug, Clone)]
/// struct Label { name: String, colour: Option<String> }
///
/// entity! {
///     Label as "label" in "labels" {
///         NAME: String = name => |label| label.name.clone();
///         COLOUR: Option<String> = colour => |label| label.colour.clone();
///     }
///     unique [NAME];
///     validate |label| Invalid::text("name", &label.name, 1, 40);
/// }
///
/// assert_eq!(<Label as Entity>::COLUMNS.len(), 2);
/// ```
#[macro_export]
macro_rules! entity {
    (
        $entity:ident as $name:literal in $table:literal {
            $($field:ident : $type:ty = $column:ident => |$value:ident| $read:expr;)*
        }
        $(unique [$($unique:ident),+];)*
        $(nulls_equal $nulls_equal:literal;)?
        $(refers $from:ident -> $target:ident $on_delete:ident $(($clear:expr))?;)*
        validate |$this:ident| $check:expr;
    ) => {
        #[allow(missing_docs, reason = "a field constant is named after its column")]
        impl $entity {
            $(pub const $field: $crate::Field<$entity, $type> =
                $crate::Field::new(stringify!($column), |$value: &$entity| $crate::Value::from($read));)*
        }

        impl $crate::Entity for $entity {
            const NAME: &'static str = $name;
            const TABLE: &'static str = $table;
            const COLUMNS: &'static [$crate::Column<Self>] = &[$($entity::$field.column),*];
            const UNIQUE: &'static [&'static [$crate::Column<Self>]] =
                &[$(&[$($entity::$unique.column),+]),*];
            const NULLS_EQUAL: bool = false $(|| $nulls_equal)?;
            const REFERENCES: &'static [$crate::Reference<Self>] = &[$($crate::Reference {
                column: $entity::$from.column,
                target: <$target as $crate::Entity>::NAME,
                on_delete: $crate::OnDelete::$on_delete $(($clear))?,
            }),*];

            fn validate(&self) -> Result<(), $crate::Invalid> {
                let $this = self;
                $check
            }
        }
    };
}
