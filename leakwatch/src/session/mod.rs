//! One recording, from attach to report: the only place that knows every stage.
