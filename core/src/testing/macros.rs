//! What makes tests of a list of cases.

/// One test of each case in a list, for both suites.
#[doc(hidden)]
#[macro_export]
macro_rules! __contract_tests {
    ({ $($given:tt)* } $($method:ident in $module:ident: $($name:ident)+;)+) => {
        $crate::__contract_tests! { @each { $($given)* } $($($name)+)+ }
    };
    (@each $given:tt $($name:ident)+) => {
        $($crate::__contract_tests! { @one $given $name })+
    };
    (@one { # $test:tt ($harness:expr) $check:ident } $name:ident) => {
        # $test
        async fn $name() {
            let harness = ::std::sync::Arc::new($harness);
            $crate::testing::$check(stringify!($name), harness).await;
        }
    };
}
