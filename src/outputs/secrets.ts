import type { Snapshot } from '../core/snapshot.ts'
import { registry } from '../registry.ts'
import { dotenv } from './dotenv.ts'
import { env } from './env.ts'
import { javaProperties } from './java-properties.ts'
import { json } from './json.ts'
import type { Output } from './output.ts'
import type { SecretOutputDeps } from './secret-output.ts'
import { template } from './template.ts'
import { yaml } from './yaml.ts'

/** All that a secret may become. */
export const secretOutputs = registry<SecretOutputDeps, Output<Snapshot>>(
  template,
  dotenv,
  env,
  json,
  yaml,
  javaProperties,
)
