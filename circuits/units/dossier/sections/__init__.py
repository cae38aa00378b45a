"""One module per subject; each registers its sections with `@section`, and is found by lying here."""
