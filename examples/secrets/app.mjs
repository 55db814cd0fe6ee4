// A program that reads its secrets from a file, and again on SIGHUP.
import { readFileSync, rmSync, writeFileSync } from 'node:fs'

const { SECRETS_DIR, PID_FILE } = process.env

const load = () => console.log(`app: ${readFileSync(`${SECRETS_DIR}/app.toml`, 'utf8').split('\n')[0]}`)

load()
process.on('SIGHUP', load)
process.on('SIGTERM', () => {
  rmSync(PID_FILE, { force: true })
  process.exit(0)
})
// After the handlers are there: SIGHUP ends a process that has none.
writeFileSync(PID_FILE, `${process.pid}\n`)
setInterval(() => {}, 2 ** 30)
