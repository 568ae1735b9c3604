//! Rows of other people's data, in the formats of TRL and Alpaca.
