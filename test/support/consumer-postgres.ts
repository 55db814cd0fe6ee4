import { execFile } from 'node:child_process'
import { appendFile, realpath } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { askForTls } from '../../src/verifiers/start-tls.ts'
import { component } from './components.ts'
import { asNobody, exampleConfig, exampleText } from './consumer-example.ts'
import { type Consumer, startServer } from './consumer-rig.ts'

/** The PostgreSQL of examples/postgres. */
export const postgresConsumer = (more: Partial<Consumer> = {}): Consumer => ({
  name: 'PostgreSQL',
  config: exampleConfig('postgres'),
  beforeTls: async (socket) => {
    const refusal = await askForTls(socket, 'postgres')
    if (refusal !== undefined) throw new Error(refusal)
  },
  start: async ({ folder, port }) => {
    const programs = dirname(await realpath(await component('postgres')))
    const data = join(folder, 'data')
    const settings = ['--username=app', '--auth=trust', '--no-sync', '--locale=C', '--encoding=UTF8']
    const [program, ...args] = asNobody
    await promisify(execFile)(program, [...args, join(programs, 'initdb'), `--pgdata=${data}`, ...settings])
    await appendFile(join(data, 'postgresql.conf'), exampleText('postgres/postgresql.conf'))
    const argv = [...asNobody, join(programs, 'postgres'), '-D', data, '-p', `${port}`]
    return startServer({ argv, stop: 'SIGINT' })
  },
  ...more,
})
