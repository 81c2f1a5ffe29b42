"""What `trailmark demo` plays: an audit of the Python environment it runs in, killed halfway, resumed, decided and ended.

The audit: `environment_audit` is the flow, `audit_checks` looks at the environment, `audit_report` writes what was found.
These three know nothing of the demo; they are what one would write, and may copy.

The demo: `drama` tells the story, `screen` is how it looks and `question` what it asks; `worker` is the process that gets
killed, `worker_process` the handle on it, `journal` the witness of what ran, `looking` what the database holds, and
`scratch` makes something to find.  Nothing else in trailmark imports this package, but for the command that opens it.
"""
