//! A bounded, closable, joinable queue with waiting and async ends.
