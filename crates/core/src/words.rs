//! Enums that are one word in the database and on the wire.

/// Declares an enum whose variants are words: `as_str`, `parse`, `ALL`, serde, JSON Schema and [`Value`](crate::Value).
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident: $noun:literal {
            $($(#[$doc:meta])* $variant:ident = $word:literal,)+
        }
    ) => {
        $(#[$meta])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash,
            serde::Serialize, serde::Deserialize, schemars::JsonSchema,
        )]
        pub enum $name {
            $($(#[$doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every one, in the order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word in the database and on the wire.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)+
                }
            }

            /// The one with this word; otherwise an error that lists the words.
            pub fn parse(word: &str) -> Result<Self, $crate::Invalid> {
                match word {
                    $($word => Ok(Self::$variant),)+
                    _ => Err($crate::Invalid::new($noun, concat!("must be one of:" $(, " ", $word)+))),
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Invalid;

            fn from_str(word: &str) -> Result<Self, $crate::Invalid> {
                Self::parse(word)
            }
        }

        impl From<$name> for $crate::Value {
            fn from(word: $name) -> Self {
                Self::Text(word.as_str().to_owned())
            }
        }
    };
}
pub(crate) use words;
