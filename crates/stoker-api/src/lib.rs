//! The kinds of stoker.dev/v1alpha1: types, defaults, CEL rules, printer columns.
