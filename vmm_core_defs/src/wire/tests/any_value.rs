//! Any value of any type that serde can deserialize, made from random numbers. Each variant of each enum may come, also one that is added later.

use crate::addr::GuestAddress;
use serde::de;
use serde::de::IntoDeserializer;
use serde::de::value::Error;
use serde::de::value::U32Deserializer;

/// A value that follows from the seed.
pub(in crate::wire) fn value<T: de::DeserializeOwned>(seed: u64) -> T {
    let mut any = Any { state: seed };
    // Some numbers cannot be 0.
    let made = (0..ATTEMPTS).find_map(|_| T::deserialize(&mut any).ok());
    made.expect("any value")
}

/// The maximum number of attempts at a value. Two failures in a row are rare.
const ATTEMPTS: u32 = 16;

/// The maximum number of elements of a list, or of bytes of memory.
const MAX_ELEMENTS: usize = 4;

/// A value for a request. A read asks for at least as many bytes as any answer of [`value`] has.
pub(in crate::wire) fn input<T: de::DeserializeOwned + 'static>(seed: u64) -> T {
    let mut input = value(seed);
    let any: &mut dyn std::any::Any = &mut input;
    if let Some((_, len)) = any.downcast_mut::<(GuestAddress, usize)>() {
        *len = MAX_ELEMENTS.max(*len);
    }
    input
}

struct Any {
    state: u64,
}

impl Any {
    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Numbers with many bits as often as those with few.
    fn number(&mut self) -> u64 {
        let shift = self.next() % 65;
        self.next()
            .checked_shr(u32::try_from(shift).unwrap())
            .unwrap_or(0)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % end as u64).unwrap()
    }
}

macro_rules! numbers {
    ($($method:ident $visit:ident $type:ty),*) => {$(
        fn $method<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            visitor.$visit(self.number() as $type)
        }
    )*};
}

#[expect(clippy::cast_possible_truncation, reason = "any number will do")]
impl<'de> de::Deserializer<'de> for &mut Any {
    type Error = Error;

    numbers!(
        deserialize_u8 visit_u8 u8, deserialize_u16 visit_u16 u16, deserialize_u32 visit_u32 u32, deserialize_u64 visit_u64 u64,
        deserialize_i8 visit_i8 i8, deserialize_i16 visit_i16 i16, deserialize_i32 visit_i32 i32, deserialize_i64 visit_i64 i64
    );

    fn deserialize_u128<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let high = u128::from(self.number());
        visitor.visit_u128(high << 64 | u128::from(self.number()))
    }

    fn deserialize_bool<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let value = self.below(2) == 1;
        visitor.visit_bool(value)
    }

    fn deserialize_string<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let texts = ["", "KVM", "the \u{fffd} of \n\0", "ä"];
        let text = texts[self.below(texts.len())];
        visitor.visit_string(text.to_owned())
    }

    fn deserialize_option<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.below(2) {
            0 => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_unit<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn deserialize_newtype_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: de::Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let left = self.below(MAX_ELEMENTS + 1);
        visitor.visit_seq(Elements { any: self, left })
    }

    fn deserialize_tuple<V: de::Visitor<'de>>(
        self,
        left: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(Elements { any: self, left })
    }

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_tuple(fields.len(), visitor)
    }

    fn deserialize_enum<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let variant = u32::try_from(self.below(variants.len())).unwrap();
        visitor.visit_enum(Variant { any: self, variant })
    }

    fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Error> {
        Err(de::Error::custom(
            "this kind of type is not used in messages",
        ))
    }

    serde::forward_to_deserialize_any! {
        f32 f64 i128 char str bytes byte_buf unit_struct tuple_struct map identifier ignored_any
    }
}

/// The elements of a list.
struct Elements<'a> {
    any: &'a mut Any,
    left: usize,
}

impl<'de> de::SeqAccess<'de> for Elements<'_> {
    type Error = Error;

    fn next_element_seed<T: de::DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else {
            return Ok(None);
        };
        self.left = left;
        seed.deserialize(&mut *self.any).map(Some)
    }
}

struct Variant<'a> {
    any: &'a mut Any,
    variant: u32,
}

impl<'de> de::EnumAccess<'de> for Variant<'_> {
    type Error = Error;
    type Variant = Self;

    fn variant_seed<V: de::DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let variant: U32Deserializer<Error> = self.variant.into_deserializer();
        Ok((seed.deserialize(variant)?, self))
    }
}

impl<'de> de::VariantAccess<'de> for Variant<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        Ok(())
    }

    fn newtype_variant_seed<T: de::DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        seed.deserialize(self.any)
    }

    fn tuple_variant<V: de::Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, Error> {
        de::Deserializer::deserialize_tuple(self.any, len, visitor)
    }

    fn struct_variant<V: de::Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.tuple_variant(fields.len(), visitor)
    }
}
