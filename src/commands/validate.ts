import { styleText } from 'node:util'
import { configJsonSchema, loadConfig } from '../config/config.ts'
import { count, type Io, print } from './io.ts'

/** Checks a config file. Throws a ConfigError that lists everything wrong with it. */
export function validate(file: string, io: Io): void {
  const config = loadConfig(file, io.env)
  const names = config.certificates.map(({ name }) => name).join(', ')
  print(
    io,
    `${styleText('green', '✓', { stream: io.stdout })} ${file} is valid: ${count(config.certificates.length, 'certificate')} (${names})`,
  )
}

export const printSchema = (io: Io): void => print(io, JSON.stringify(configJsonSchema(), null, 2))
