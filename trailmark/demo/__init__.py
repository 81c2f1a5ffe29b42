"""The flow behind `trailmark demo`: an audit of the Python environment it runs in.

`environment_audit` is the flow, `audit_checks` looks at the environment, `audit_report` writes what was found.
Nothing else in trailmark imports this package.
"""
