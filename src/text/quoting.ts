/** A word for a POSIX shell (XCU §2.2.2): nothing is special between single quotes. There is no way to write a NUL. */
export const shellQuote = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`

/** A basic string of TOML 1.0, with its quotes. JSON's escapes are TOML's too, but TOML also wants DEL escaped. */
export const tomlString = (text: string): string => JSON.stringify(text).replaceAll('\u007f', '\\u007f')
