//! Values in the guest's memory.

/// A value that guest memory contains, in little-endian order.
pub trait Scalar: Sized + sealed::Sealed {
    /// The number of bytes.
    const LEN: usize;

    /// The value of [`LEN`](Self::LEN) bytes.
    #[doc(hidden)]
    fn from_bytes(bytes: &[u8]) -> Option<Self>;

    /// The bytes of the value.
    #[doc(hidden)]
    fn to_bytes(self) -> Vec<u8>;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! integers {
    ($($type:ty)*) => {
        $(
            impl sealed::Sealed for $type {}

            impl Scalar for $type {
                const LEN: usize = size_of::<Self>();

                fn from_bytes(bytes: &[u8]) -> Option<Self> {
                    bytes.try_into().map(Self::from_le_bytes).ok()
                }

                fn to_bytes(self) -> Vec<u8> {
                    self.to_le_bytes().to_vec()
                }
            }
        )*
    };
}

integers!(u8 u16 u32 u64 u128 i8 i16 i32 i64 i128);

impl<const N: usize> sealed::Sealed for [u8; N] {}

impl<const N: usize> Scalar for [u8; N] {
    const LEN: usize = N;

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok()
    }

    fn to_bytes(self) -> Vec<u8> {
        self.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_little_endian_and_of_their_own_length() {
        assert_eq!(u32::from_bytes(&[1, 2, 3, 4]), Some(0x0403_0201));
        assert_eq!(i16::from_bytes(&[0xfe, 0xff]), Some(-2));
        assert_eq!(u64::from_bytes(&[1, 2, 3, 4]), None);
        assert_eq!(0x0102_u16.to_bytes(), [2, 1]);
        assert_eq!(<[u8; 2]>::from_bytes(&[7, 8]), Some([7, 8]));
    }
}
