//! The attribute `async_test` of `pal_async`.

use proc_macro::TokenStream;
use quote::quote;
use syn::ItemFn;
use syn::parse_macro_input;

/// Converts an `async fn` without parameters, or with a `DefaultDriver` as its parameter, to a `#[test]`.
///
/// The test ends when the function and every task that it has spawned have ended.
#[proc_macro_attribute]
pub fn async_test(_: TokenStream, item: TokenStream) -> TokenStream {
    let mut function = parse_macro_input!(item as ItemFn);
    let attributes = std::mem::take(&mut function.attrs);
    let name = &function.sig.ident;
    let output = &function.sig.output;
    let call = match (function.sig.asyncness, function.sig.inputs.len()) {
        (Some(_), 0) => quote!(async |_| #name().await),
        (Some(_), 1) => quote!(#name),
        _ => {
            let text =
                "an async_test is an `async fn` without parameters or with a `DefaultDriver`";
            return syn::Error::new_spanned(&function.sig, text)
                .to_compile_error()
                .into();
        }
    };
    quote! {
        #[test]
        #(#attributes)*
        fn #name() #output {
            #function
            ::pal_async::DefaultPool::run_with(#call)
        }
    }
    .into()
}
