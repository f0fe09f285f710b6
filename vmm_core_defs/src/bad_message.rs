//! The reasons why a message between two processes could not be used.

use serde::Deserialize;
use serde::Serialize;
use thiserror::Error;

/// The reason why a message of another process could not be used. A request that the VMM answers with this reason had no effect.
#[derive(Debug, Clone, PartialEq, Eq, Error, Serialize, Deserialize)]
#[non_exhaustive]
pub enum BadMessage {
    /// The bytes are no message.
    #[error("its bytes are no message; the sender has a bug")]
    Malformed,
    /// The message has a field that the receiver does not know. The receiver ignores no field.
    #[error(
        "{message} has a field {field}, which this version does not know; use the same version on both sides"
    )]
    UnknownField {
        /// The name of the message in the `.proto` files.
        message: String,
        /// The number of the field.
        field: u32,
    },
    /// A field has a value that the receiver does not know.
    #[error(
        "{of} has the value {value}, which this version does not know; use the same version on both sides"
    )]
    UnknownValue {
        /// The name of the type in the `.proto` files.
        of: String,
        /// The value, as the sender has encoded it.
        value: i32,
    },
    /// A field that is required is missing.
    #[error("it has no value for `{of}`; set the field")]
    Missing {
        /// The name of the field, or of the message of which one field is required.
        of: String,
    },
    /// The value of a field is too large, or has another length than required.
    #[error("the value of `{of}` is out of range; the `.proto` files name the range")]
    OutOfRange {
        /// The name of the field or of its type.
        of: String,
    },
    /// The message has too many elements.
    #[error("it has more than {limit} elements; send several messages")]
    TooMany {
        /// The permitted number of elements.
        limit: u64,
    },
    /// The message is too long.
    #[error("it has {len} bytes, and {limit} are permitted; ask for less")]
    TooLong {
        /// The length of the message in bytes.
        len: u64,
        /// The permitted length in bytes.
        limit: u64,
    },
    /// Too many requests, or requests with too many bytes, have no answer yet.
    #[error("too many requests have no answer yet; wait for answers, and read them")]
    TooManyPending,
    /// The answer is that of another kind of request, or has more memory than the request asked for.
    #[error("the answer belongs to another request; the VMM has a bug")]
    WrongAnswer,
    /// A field that may occur once occurs twice, or two of the fields of which a message has one.
    #[error(
        "it has `{of}` where it already has this field, or another of the same choice; send one"
    )]
    Duplicate {
        /// The name of the field that came second.
        of: String,
    },
    /// The number of a request cannot be used. The answer with this error has the number 0, so that no other request takes it for its own answer.
    #[error(
        "the number {id} is 0, or that of a request without an answer; give each request another number"
    )]
    BadId {
        /// The number of the request.
        id: u64,
    },
}
