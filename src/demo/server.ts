import { readFileSync } from 'node:fs'
import { createServer } from 'node:https'
import { join } from 'node:path'

/**
 * The server of the demo, in a process of its own: plain Node over TLS, which reads its certificate again on SIGHUP. Tells its
 * parent when it listens, and ends when the parent goes away. Serves what it has when the new pair does not load.
 */
export function serveDemo(directory: string, port: number): void {
  const pair = () => ({ cert: readFileSync(join(directory, 'tls.crt')), key: readFileSync(join(directory, 'tls.key')) })
  const server = createServer({ ...pair(), minVersion: 'TLSv1.2' }, (_request, response) => {
    response.setHeader('Connection', 'close')
    response.end('served by the certferry demo\n')
  })
  process.on('SIGHUP', () => {
    try {
      server.setSecureContext(pair())
    } catch (error) {
      process.stderr.write(`demo server keeps its certificate: ${error instanceof Error ? error.message : error}\n`)
    }
  })
  process.on('disconnect', () => process.exit(0))
  server.listen(port, '127.0.0.1', () => process.send?.('listening'))
}
