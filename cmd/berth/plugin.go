package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/host"
	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/sdk"
)

// owner finds the process that serves the layout. Nil: there is none, which is no error.
func (a *app) owner(ctx context.Context) (*host.Owner, string, error) {
	dir, err := a.layoutDir()
	if err != nil {
		return nil, "", err
	}
	owner, err := host.Attach(ctx, dir)
	if errors.Is(err, host.ErrNotRunning) {
		return nil, dir, nil
	}
	return owner, dir, err
}

func (a *app) status() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Tell what serves the layout, and who uses it",
		Long: `Tell what serves the layout, and who uses it: version, process, uptime, what the layout holds, and who has a
lease, with the addresses that were opened for it. Nothing is started; where no process serves the layout,
that is told.`,
		Example: `  berth status
  berth status --layout .cache/images --json`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runStatus(cmd.Context()) },
	}
}

// shown is a status as data. Without a process there is the layout alone.
type shown struct {
	Running bool   `json:"running"`
	Layout  string `json:"layout"`
	*plugin.Status
	UptimeSeconds      float64 `json:"uptimeSeconds,omitempty"`
	IdleTimeoutSeconds float64 `json:"idleTimeoutSeconds,omitempty"`
}

func (a *app) runStatus(ctx context.Context) error {
	owner, dir, err := a.owner(ctx)
	if err != nil {
		return err
	}
	if owner == nil {
		return a.print(shown{Layout: dir}, []string{"no process serves " + dir})
	}
	defer owner.Close()
	status, err := owner.Status(ctx)
	if err != nil {
		return err
	}
	data := shown{Running: true, Layout: status.Layout, Status: &status, UptimeSeconds: time.Since(status.Started).Seconds(), IdleTimeoutSeconds: status.IdleTimeout.Seconds()}
	return a.print(data, statusLines(status))
}

// kinds are the kinds of process that serve a layout, in words.
var kinds = map[string]string{plugin.KindPlugin: "plugin", plugin.KindPrivate: "private plugin", plugin.KindProgram: "program"}

// statusLines are a status for people.
func statusLines(s plugin.Status) []string {
	lines := []string{
		fmt.Sprintf("layout    %s", s.Layout),
		fmt.Sprintf("served by process %d, a %s, berth %s, for %s", s.PID, kinds[s.Kind], s.Version, rounded(time.Since(s.Started))),
		fmt.Sprintf("holds     %s, %s, %s, %s", count(s.Tags, "tag"), count(s.Manifests, "manifest"), amount(s.Blobs, s.Bytes), "in "+countOf(s.Repositories, "repository", "repositories")),
		fmt.Sprintf("promises  %s", s.Durability),
	}
	if s.Kind == plugin.KindPlugin {
		lines = append(lines, fmt.Sprintf("ends      %s after its last lease", s.IdleTimeout))
	}
	if s.Ending {
		lines = append(lines, "it is ending")
	}
	for _, l := range s.Leases {
		lines = append(lines, leaseLine(l))
	}
	if len(s.Leases) == 0 {
		lines = append(lines, "nobody holds a lease")
	}
	return lines
}

func leaseLine(l plugin.LeaseStatus) string {
	line := fmt.Sprintf("lease     process %d (%s, berth %s), for %s", l.PID, l.Command, l.Version, rounded(time.Since(l.Since)))
	for _, at := range l.Addresses {
		line += "  " + at.Address
		if at.Socket != "" {
			line += "  " + at.Socket
		}
	}
	return line
}

func rounded(d time.Duration) time.Duration {
	if d < time.Second {
		return d.Round(time.Millisecond)
	}
	return d.Round(time.Second)
}

func countOf(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}

func (a *app) stop() *cobra.Command {
	return &cobra.Command{
		Use:   "stop",
		Short: "End what serves the layout",
		Long: `End what serves the layout, in good order: requests that are under way finish, uploads can be resumed,
and index.json is brought up to date. Programs that have the layout open through the SDK start it again when
they next use it, at the same address; until then nobody answers there. berth serve and berth endpoint end.
It returns when the process has let the layout go. That nothing serves the layout is no error.`,
		Example: `  berth stop
  berth stop --layout .cache/images`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runStop(cmd.Context()) },
	}
}

func (a *app) runStop(ctx context.Context) error {
	owner, dir, err := a.owner(ctx)
	if err != nil {
		return err
	}
	if owner == nil {
		return a.print(map[string]any{"stopped": false, "layout": dir}, []string{"no process serves " + dir})
	}
	defer owner.Close()
	if err := owner.Stop(ctx); err != nil {
		return err
	}
	info := owner.Info()
	return a.print(map[string]any{"stopped": true, "layout": info.Layout, "pid": info.PID}, []string{fmt.Sprintf("stopped process %d, which served %s", info.PID, info.Layout)})
}

// idle is how long what serves the layout stays after this command.
func (a *app) idle() (time.Duration, error) {
	if d := a.idleTimeout.option(); d != 0 {
		return d, nil
	}
	return sdk.DefaultIdleTimeout()
}

// lending is what berth endpoint was asked for.
type lending struct {
	pid    int
	socket bool
	listen plugin.ListenOptions
	open   bool // without a token
}

func (a *app) endpoint() *cobra.Command {
	var l lending
	cmd := &cobra.Command{
		Use:   "endpoint",
		Short: "Open an address of the layout's registry for another program",
		Long: `Open an address of the layout's registry for another program, which need not be written in Go. It prints
where the registry answers, and with what credentials, and keeps that open until it is interrupted, also if what
serves the layout crashes. With --while-pid it returns at once, and the address is open for as long as that process
runs, and what serves the layout does.

As data, with --json, it is one object: url, host, username, password, socket and layout, and the content of files
that other programs read: dockerConfig is a config.json for $DOCKER_CONFIG, or for --authfile of podman, buildah and
skopeo; registriesConf goes to their --registries-conf, or into registries.conf.d; hostsToml to
certs.d/HOST/hosts.toml of containerd; buildkitToml into buildkitd.toml. All but the last two have the password in
them, or beside it: keep them to yourself. At the socket the name of the host is localhost.`,
		Example: `  berth endpoint --anonymous --read-only
  berth endpoint --json --while-pid $$ >at.json
  jq -r .dockerConfig at.json >auth.json; jq -r .registriesConf at.json >registries.conf
  skopeo --registries-conf registries.conf copy --authfile auth.json oci:out/image "docker://$(jq -r .host at.json)/app/hello:v1"`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cmd.Flags().Changed("while-pid") && (l.pid <= 0 || l.pid > math.MaxInt32) {
				return usageError{fmt.Errorf("--while-pid %d: want the number of a process", l.pid)}
			}
			return a.runEndpoint(cmd.Context(), l)
		},
	}
	flags := cmd.Flags()
	flags.IntVar(&l.pid, "while-pid", 0, "return at once, and keep the address open while the process `PID` runs")
	flags.BoolVar(&l.socket, "socket", false, "open a Unix socket too")
	flags.BoolVar(&l.open, "anonymous", false, "let every program on this machine in, without a token")
	flags.BoolVar(&l.listen.ReadOnly, "read-only", false, "refuse pushes and deletes at this address")
	flags.BoolVar(&l.listen.AllowMissing, "allow-sparse", false, "take images and indexes whose children are missing")
	return cmd
}

func (a *app) runEndpoint(ctx context.Context, l lending) error {
	if err := a.mayBeMade(); err != nil {
		return err
	}
	dir, err := a.layoutDir()
	if err != nil {
		return err
	}
	if !l.open {
		l.listen.Token = rand.Text()
	}
	if l.socket {
		l.listen.Socket = rand.Text()
	}
	own := l.listen
	if l.pid != 0 {
		own = plugin.ListenOptions{Token: rand.Text()}
	}
	idle, err := a.idle()
	if err != nil {
		return err
	}
	session, err := host.Open(ctx, host.Options{Layout: dir, Launcher: host.Self(), Listen: own, Logger: a.teller(), IdleTimeout: idle})
	if err != nil {
		return err
	}
	return errors.Join(a.lend(ctx, session, l), session.Close())
}

// lend prints an address, and keeps it open for as long as was asked for.
func (a *app) lend(ctx context.Context, session *host.Session, l lending) (err error) {
	at := session.Endpoint()
	if l.pid != 0 {
		if at, err = session.HoldFor(ctx, l.pid, l.listen); err != nil {
			return err
		}
	}
	if err := a.printEndpoint(sdk.NewEndpoint(at, session.Info().Layout)); err != nil || l.pid != 0 {
		return err
	}
	if err := session.Stay(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	return fmt.Errorf("the registry of %s was stopped, and with it this address; run berth endpoint again", session.Info().Layout)
}

func (a *app) printEndpoint(e sdk.Endpoint) error {
	data := struct {
		sdk.Endpoint
		DockerConfig   string `json:"dockerConfig"`
		HostsTOML      string `json:"hostsToml"`
		BuildkitTOML   string `json:"buildkitToml"`
		RegistriesConf string `json:"registriesConf"`
		Version        string `json:"version"`
	}{e, string(e.DockerConfig()), e.HostsTOML(), e.BuildkitTOML(), e.RegistriesConf(), plugin.Version()}
	lines := []string{"url       " + e.URL}
	if e.Password != "" {
		lines = append(lines, "username  "+e.Username, "password  "+e.Password)
	}
	if e.Socket != "" {
		lines = append(lines, "socket    "+e.Socket)
	}
	return a.print(data, lines)
}
