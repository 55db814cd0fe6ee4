import { styleText } from 'node:util'
import { verifyAudit } from '../observe/audit.ts'
import { count, type Io, print } from './io.ts'

/** Follows the hash chain of an audit log. Throws AUDIT_BROKEN naming the line that does not fit. */
export async function verify(file: string, io: Io): Promise<void> {
  const { lines, head, torn } = await verifyAudit(file)
  const mark = styleText('green', '✓', { stream: io.stdout })
  print(
    io,
    `${mark} ${file}: ${count(lines, 'line')}, the chain is whole${torn ? '; the last line was cut off by a crash' : ''}`,
  )
  print(io, `  head ${head}`)
}
