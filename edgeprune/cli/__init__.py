"""The command line: one module per verb, the only place where the stages meet; each verb imports its stage itself."""
