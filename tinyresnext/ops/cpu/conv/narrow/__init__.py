"""Groups that fill a vector together, or alone: forward (`strips`, `tile`) and `outer`."""
