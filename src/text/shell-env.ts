import type { Entries } from './entries.ts'
import { shellQuote } from './quoting.ts'
import { assertVariable } from './variable-name.ts'

/** A file for `. ./file` in any POSIX shell: `export NAME='value'`. Carries whatever a variable can; else throws VALUE_UNWRITABLE. */
export function toShellEnv(entries: Entries): string {
  return [...entries]
    .map(([name, value]) => {
      assertVariable(name, value)
      return `export ${name}=${shellQuote(value)}\n`
    })
    .join('')
}
