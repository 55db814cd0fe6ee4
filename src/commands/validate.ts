import { styleText } from 'node:util'
import { loadConfig } from '../config/config.ts'
import { printedJsonSchema } from '../config/schema.ts'
import { openIdle } from '../idle.ts'
import { counts, type Io, print } from './io.ts'

/** Checks a config file, and that all it names can be made. Throws a ConfigError that lists everything wrong with it. */
export async function validate(file: string, io: Io): Promise<void> {
  const config = loadConfig(file, io.env)
  if (config.injector) (await import('../injector/context.ts')).contextOf(config.injector, io.env)
  await using idle = openIdle(config, io.env)
  for (const { trust } of idle.trust) for (const output of trust.outputs) await output.prepare?.()
  for (const { secret } of idle.secrets) for (const output of secret.outputs) await output.prepare?.()
  const names = [...config.certificates, ...config.secrets, ...config.trust].map(({ name }) => name).join(', ')
  for (const warning of config.warnings) io.stderr.write(`certferry: ${warning}\n`)
  const mark = styleText('green', '✓', { stream: io.stdout })
  print(io, `${mark} ${file} is valid: ${counts(config)} (${names})`)
}

export const printSchema = (io: Io): void => print(io, JSON.stringify(printedJsonSchema(), null, 2))
