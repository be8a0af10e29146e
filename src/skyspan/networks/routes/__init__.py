"""Static routes on hosts, each marked as ours."""
