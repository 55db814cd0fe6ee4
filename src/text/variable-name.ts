import { quote } from '../core/secret.ts'
import { SidecarError } from '../errors.ts'

/** Throws VALUE_UNWRITABLE for an entry that no process can have in its environment, whatever the file looks like. */
export function assertVariable(name: string, value: string): void {
  if (!/^[A-Za-z_][A-Za-z0-9_]*$/.test(name))
    throw new SidecarError(
      'VALUE_UNWRITABLE',
      `${quote(JSON.stringify(name))} is no name of a variable; use letters, digits and _, and no digit first`,
    )
  if (value.includes('\0'))
    throw new SidecarError(
      'VALUE_UNWRITABLE',
      `the value of ${name} holds a NUL, which no variable can; encode it in base64`,
    )
  if (!value.isWellFormed())
    throw new SidecarError(
      'VALUE_UNWRITABLE',
      `the value of ${name} is not Unicode text (half a surrogate pair); encode it in base64`,
    )
}
