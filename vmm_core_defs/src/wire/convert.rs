//! Conversions between the messages of `debug_rpc` and those of the `.proto` files. The tables below say which type is which message. A conversion to the
//! wire never fails. A conversion from the wire fails with the name of what is wrong.

mod breakpoints;
mod errors;
mod memory;
mod registers;
pub(super) mod requests;
mod run;
mod trace;

use super::proto;
use crate::addr::Gpa;
use crate::addr::Gva;
use crate::addr::VpIndex;
use crate::debug_rpc::BadMessage;
use crate::stop::Epoch;
use crate::vp_set::VpSet;
use bytes::Bytes;
use std::num::NonZeroU64;

/// A value on its own: an element of a list, or the contents of a `oneof` or of an optional field.
pub(super) trait Value: Sized {
    type Wire;
    fn into_wire(self) -> Self::Wire;
    fn from_wire(wire: Self::Wire) -> Result<Self, BadMessage>;
}

/// A value as a field of a message. `prost` has an `Option` for a field with a message, also if the field is required.
pub(super) trait Field: Sized {
    type Wire;
    fn into_field(self) -> Self::Wire;
    /// `name` is for the error.
    fn from_field(wire: Self::Wire, name: &str) -> Result<Self, BadMessage>;
}

fn missing(of: &str) -> BadMessage {
    let of = of.to_owned();
    BadMessage::Missing { of }
}

fn out_of_range(of: &str) -> BadMessage {
    let of = of.to_owned();
    BadMessage::OutOfRange { of }
}

/// Types whose field is their value.
macro_rules! field_is_value {
    ($($rust:ty),*) => {$(
        impl Field for $rust {
            type Wire = <Self as Value>::Wire;

            fn into_field(self) -> Self::Wire {
                self.into_wire()
            }

            fn from_field(wire: Self::Wire, _: &str) -> Result<Self, BadMessage> {
                Self::from_wire(wire)
            }
        }
    )*};
}
use field_is_value;

/// Types that are the same on the wire.
macro_rules! same {
    ($($rust:ty),*) => {$(
        impl Value for $rust {
            type Wire = Self;

            fn into_wire(self) -> Self {
                self
            }

            fn from_wire(wire: Self) -> Result<Self, BadMessage> {
                Ok(wire)
            }
        }

        field_is_value!($rust);
    )*};
}

same!(bool, u32, i32, u64, String);

/// Integers that are wider on the wire.
macro_rules! wider {
    ($($rust:ty => $wire:ty),*) => {$(
        impl Value for $rust {
            type Wire = $wire;

            fn into_wire(self) -> $wire {
                // Every value fits: `usize` has at most 64 bits.
                <$wire>::try_from(self).unwrap_or(<$wire>::MAX)
            }

            fn from_wire(wire: $wire) -> Result<Self, BadMessage> {
                Self::try_from(wire).map_err(|_| out_of_range(stringify!($rust)))
            }
        }

        impl Field for $rust {
            type Wire = $wire;

            fn into_field(self) -> $wire {
                self.into_wire()
            }

            fn from_field(wire: $wire, name: &str) -> Result<Self, BadMessage> {
                Self::try_from(wire).map_err(|_| out_of_range(name))
            }
        }
    )*};
}

wider!(u8 => u32, u16 => u32, usize => u64);

/// Types with one number in them.
macro_rules! number {
    ($($rust:ident => $wire:ty, $into:ident, $from:ident);* $(;)?) => {$(
        impl Value for $rust {
            type Wire = $wire;

            fn into_wire(self) -> $wire {
                self.$into()
            }

            fn from_wire(wire: $wire) -> Result<Self, BadMessage> {
                Ok(Self::$from(wire))
            }
        }

        field_is_value!($rust);
    )*};
}

number! {
    VpIndex => u32, index, new;
    Gva => u64, value, new;
    Gpa => u64, value, new;
    Epoch => u64, number, from_number;
}

/// A number that is not 0.
impl Field for NonZeroU64 {
    type Wire = u64;

    fn into_field(self) -> u64 {
        self.get()
    }

    fn from_field(wire: u64, name: &str) -> Result<Self, BadMessage> {
        Self::new(wire).ok_or_else(|| out_of_range(name))
    }
}

/// Enums without fields.
macro_rules! enumeration {
    ($rust:ident { $($variant:ident),* $(,)? }) => {
        impl Value for $rust {
            type Wire = i32;

            fn into_wire(self) -> i32 {
                match self {
                    $(Self::$variant => proto::$rust::$variant.into(),)*
                }
            }

            fn from_wire(wire: i32) -> Result<Self, BadMessage> {
                match proto::$rust::try_from(wire) {
                    $(Ok(proto::$rust::$variant) => Ok(Self::$variant),)*
                    Ok(proto::$rust::Unspecified) => Err(missing(stringify!($rust))),
                    Err(_) => {
                        let of = stringify!($rust).to_owned();
                        Err(BadMessage::UnknownValue { of, value: wire })
                    }
                }
            }
        }

        field_is_value!($rust);
    };
}
use enumeration;

/// A message as a field that is required.
macro_rules! required {
    ($($rust:ty),* $(,)?) => {$(
        impl Field for $rust {
            type Wire = Option<<Self as Value>::Wire>;

            fn into_field(self) -> Self::Wire {
                Some(self.into_wire())
            }

            fn from_field(wire: Self::Wire, name: &str) -> Result<Self, BadMessage> {
                Self::from_wire(wire.ok_or_else(|| missing(name))?)
            }
        }
    )*};
}
use required;

/// Structs. The fields have the same names on the wire.
macro_rules! message {
    ($($rust:ident { $($field:ident),* $(,)? })*) => {$(
        impl Value for $rust {
            type Wire = proto::$rust;

            fn into_wire(self) -> proto::$rust {
                proto::$rust { $($field: self.$field.into_field()),* }
            }

            fn from_wire(wire: proto::$rust) -> Result<Self, BadMessage> {
                Ok(Self { $($field: Field::from_field(wire.$field, stringify!($field))?),* })
            }
        }

        required!($rust);
    )*};
}
use message;

/// Tuples, and other types with one value, as messages.
macro_rules! tuple {
    ($(($($rust:ty),*) => $wire:ident ($($field:ident),*);)*) => {$(
        impl Value for ($($rust),*) {
            type Wire = proto::$wire;

            fn into_wire(self) -> proto::$wire {
                let ($($field),*) = self;
                proto::$wire { $($field: $field.into_field()),* }
            }

            fn from_wire(wire: proto::$wire) -> Result<Self, BadMessage> {
                Ok(($(Field::from_field(wire.$field, stringify!($field))?),*))
            }
        }
    )*};
}
use tuple;

/// Enums with fields: a message with a `oneof`, in which each variant is `Nothing`, a value, or a message inside the message.
macro_rules! union {
    ($rust:ident, $module:ident { $($variant:ident $(($inner:ident))? $({ $($field:ident),* })?),* $(,)? }) => {
        impl Value for $rust {
            type Wire = proto::$rust;

            fn into_wire(self) -> proto::$rust {
                let kind = match self {
                    $(Self::$variant $(($inner))? $({ $($field),* })? => proto::$module::Kind::$variant(
                        union!(@into $module $variant $(($inner))? $({ $($field),* })?)
                    ),)*
                };
                proto::$rust { kind: Some(kind) }
            }

            fn from_wire(wire: proto::$rust) -> Result<Self, BadMessage> {
                match wire.kind.ok_or_else(|| missing(stringify!($rust)))? {
                    $(proto::$module::Kind::$variant(value) => {
                        union!(@from $rust $variant value $(($inner))? $({ $($field),* })?)
                    })*
                }
            }
        }

        required!($rust);
    };
    (@into $module:ident $variant:ident) => { proto::Nothing {} };
    (@into $module:ident $variant:ident ($inner:ident)) => { $inner.into_wire() };
    (@into $module:ident $variant:ident { $($field:ident),* }) => {
        proto::$module::$variant { $($field: $field.into_field()),* }
    };
    (@from $rust:ident $variant:ident $value:ident) => {{
        let proto::Nothing {} = $value;
        Ok($rust::$variant)
    }};
    (@from $rust:ident $variant:ident $value:ident ($inner:ident)) => {
        Ok($rust::$variant(Value::from_wire($value)?))
    };
    (@from $rust:ident $variant:ident $value:ident { $($field:ident),* }) => {
        Ok($rust::$variant { $($field: Field::from_field($value.$field, stringify!($field))?),* })
    };
}
use union;

impl<T: Value> Field for Option<T> {
    type Wire = Option<T::Wire>;

    fn into_field(self) -> Self::Wire {
        self.map(T::into_wire)
    }

    fn from_field(wire: Self::Wire, _: &str) -> Result<Self, BadMessage> {
        wire.map(T::from_wire).transpose()
    }
}

impl<T: Value> Field for Vec<T> {
    type Wire = Vec<T::Wire>;

    fn into_field(self) -> Self::Wire {
        self.into_iter().map(T::into_wire).collect()
    }

    fn from_field(wire: Self::Wire, _: &str) -> Result<Self, BadMessage> {
        wire.into_iter().map(T::from_wire).collect()
    }
}

impl<T: Value> Value for Box<T> {
    type Wire = T::Wire;

    fn into_wire(self) -> T::Wire {
        (*self).into_wire()
    }

    fn from_wire(wire: T::Wire) -> Result<Self, BadMessage> {
        T::from_wire(wire).map(Self::new)
    }
}

impl<T: Field> Field for Box<T> {
    type Wire = T::Wire;

    fn into_field(self) -> T::Wire {
        (*self).into_field()
    }

    fn from_field(wire: T::Wire, name: &str) -> Result<Self, BadMessage> {
        T::from_field(wire, name).map(Self::new)
    }
}

impl Value for () {
    type Wire = proto::Nothing;

    fn into_wire(self) -> proto::Nothing {
        proto::Nothing {}
    }

    fn from_wire(_: proto::Nothing) -> Result<Self, BadMessage> {
        Ok(())
    }
}

/// Memory of a guest.
impl Value for Vec<u8> {
    type Wire = Bytes;

    fn into_wire(self) -> Bytes {
        self.into()
    }

    fn from_wire(wire: Bytes) -> Result<Self, BadMessage> {
        Ok(wire.into())
    }
}

impl Field for VpSet {
    type Wire = Vec<u32>;

    fn into_field(self) -> Vec<u32> {
        self.iter().map(VpIndex::index).collect()
    }

    fn from_field(wire: Vec<u32>, _: &str) -> Result<Self, BadMessage> {
        Ok(wire.into_iter().map(VpIndex::new).collect())
    }
}
