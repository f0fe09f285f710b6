//! The async_test attribute of pal_async
