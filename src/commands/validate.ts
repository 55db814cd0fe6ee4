import { styleText } from 'node:util'
import { loadConfig } from '../config/config.ts'
import { configJsonSchema } from '../config/schema.ts'
import { openIdle } from '../idle.ts'
import { count, type Io, print } from './io.ts'

/** Checks a config file, and that all it names can be made. Throws a ConfigError that lists everything wrong with it. */
export async function validate(file: string, io: Io): Promise<void> {
  const config = loadConfig(file, io.env)
  if (config.injector) (await import('../injector/context.ts')).contextOf(config.injector, io.env)
  await using idle = openIdle(config, io.env)
  const names = idle.certificates.map(({ config }) => config.name).join(', ')
  const mark = styleText('green', '✓', { stream: io.stdout })
  print(io, `${mark} ${file} is valid: ${count(idle.certificates.length, 'certificate')} (${names})`)
}

export const printSchema = (io: Io): void => print(io, JSON.stringify(configJsonSchema(), null, 2))
