"""Statistics over patients, one idea a module; numpy and tables in, numbers with intervals out."""
