package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/server"
)

// serving is what berth serve was asked for.
type serving struct {
	opts       embedded.ServeOptions
	durability choiceValue
	passwords  string // file of
	access     string // file of the rules
	accessLog  string // file, or "-"
}

func (a *app) serve() *cobra.Command {
	s := serving{durability: choiceValue{chosen: "process", words: []string{"process", "power"}}}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the layout as a registry, until interrupted",
		Long: `Serve the layout as a registry, until interrupted. When it answers it prints one line with its address.
Any program on this machine may use it, unless --htpasswd or --access say who may.

With --htpasswd alone each user may do everything. With --access clients get tokens, for what the rules
in that file allow; what no rule allows is denied:

  rules:
    - users: [ada]
      repositories: ["app/**"]
      actions: [pull, push, delete]
    - users: ["*"]                    # whoever has logged in
      repositories: ["**"]
      actions: [pull]
      catalog: true
    - anonymous: true                 # everybody
      repositories: ["public/*"]
      actions: [pull]

The actions are pull, push, delete, and "*" for all of them; to push is not to pull, and most clients look
before they push: give both. A rule may also have classes: [GLOB...], as --allow-class has them, for what
may be pushed by it. Both files are read once.

Addresses that others can reach are served only with --tls-cert and --tls-key, and with --htpasswd or
--access. A certificate that is renewed is taken without a restart. Requests are answered only under the
names of this machine's loopback interface or the address itself, with the port that is listened at, and
under those that --host adds: no web page can reach the registry under a name of its own.

The class of a manifest is its artifact type, else its config's media type, else its own media type. With
--allow-class only such manifests can be pushed, with --deny-class no such; in both * stands for anything
but a slash, and ** for anything. Images of docker and of OCI are two classes, and an index is one more:

  --allow-class 'application/vnd.oci.image.*' --allow-class 'application/vnd.docker.container.image.*'
  --allow-class 'application/vnd.docker.distribution.manifest.list.*'

A line of the access log has method, path, status, bytes (sent), ms, client and agent.

What is pushed outlives the process, however that ends, and a second later a power cut as well; with
--durability power each answer waits for the disk.`,
		Example: `  berth serve
  berth serve --addr 127.0.0.1:0 --htpasswd users
  berth serve --htpasswd users --access rules.yaml
  berth serve --deny-class 'application/vnd.docker.plugin.*'
  berth serve --addr :443 --host registry.example.com --tls-cert cert.pem --tls-key key.pem --htpasswd users
  berth serve --durability power`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.runServe(cmd, &s) },
	}
	s.flags(cmd)
	return cmd
}

func (s *serving) flags(cmd *cobra.Command) {
	opts, flags := &s.opts, cmd.Flags()
	opts.Address = "127.0.0.1:5000"
	flags.Var((*addressValue)(&opts.Address), "addr", "listen at `HOST:PORT`; port 0 is any that is free")
	flags.Var((*nameValue)(&opts.Server.Hosts), "host", "answer to this name too, `HOST[:PORT]`; may be repeated")
	flags.Var((*textValue)(&opts.CertFile), "tls-cert", "serve https with the certificate in this PEM `FILE`, and those of its issuers behind it")
	flags.Var((*textValue)(&opts.KeyFile), "tls-key", "and with the private key in this PEM `FILE`")
	flags.Var((*textValue)(&s.passwords), "htpasswd", "ask for user and password, of this `FILE` as htpasswd -B -c FILE USER writes it")
	flags.Var((*textValue)(&s.access), "access", "give tokens by the rules in this YAML `FILE`, to the users of --htpasswd and to who is anonymous")
	flags.Var((*classValue)(&opts.Server.Policy.Allow), "allow-class", "take only manifests of this class, a `GLOB`; may be repeated")
	flags.Var((*classValue)(&opts.Server.Policy.Deny), "deny-class", "take no manifests of this class, a `GLOB`; may be repeated")
	flags.Var((*textValue)(&s.accessLog), "access-log", "write a line about each request to the end of this `FILE`; - is standard error")
	flags.IntVar(&opts.Server.Limits.Requests, "max-requests", 0, "answer at most so many requests at once, and turn others away; 0 is 1024")
	flags.IntVar(&opts.Server.Limits.Uploads, "max-uploads", 0, "take the bytes of at most so many blobs at once, others wait; 0 is 128")
	flags.Var((*sizeValue)(&opts.Server.MinChunk), "min-chunk", "ask clients for chunks of at least this `SIZE`, like 16MiB")
	flags.Var(&s.durability, "durability", "what an answer promises to outlive, `process|power`: the end of the process, or a power cut")
	flags.BoolVar(&opts.Server.ReadOnly, "read-only", false, "refuse pushes and deletes")
	flags.BoolVar(&opts.Server.AllowMissing, "allow-sparse", false, "take images and indexes whose children are missing")
}

func (a *app) runServe(cmd *cobra.Command, s *serving) error {
	s.opts.Logger = a.logger()
	if err := s.fit(); err != nil {
		return usageError{err}
	}
	if err := a.mayBeMade(); err != nil {
		return err
	}
	err := s.authorize()
	if err == nil {
		s.opts.Layout, err = a.layoutDir()
	}
	if err != nil {
		return err
	}
	if s.accessLog != "" {
		out, err := a.logTo(s.accessLog)
		if err != nil {
			return fmt.Errorf("--access-log: %w", err)
		}
		defer out.Close()
		s.opts.Server.AccessLog = a.lines(out)
	}
	debug.SetMemoryLimit(memoryGoal())
	s.opts.Durability = s.durability.chosen
	defer allowGarbage()()
	s.opts.Ready = func(address string) { a.ready(s.opts.Layout, s.scheme(), address) }
	return embedded.Serve(cmd.Context(), s.opts)
}

// memoryGoal is the memory, in bytes, near which a server collects garbage more often; $GOMEMLIMIT has the
// first word. It is far above what a server needs, and below what a crowd of clients could make of garbage.
func memoryGoal() int64 {
	const goal = 96 << 20
	if os.Getenv("GOMEMLIMIT") != "" {
		return -1 // as it is
	}
	return goal
}

// logTo opens a file to write at its end.
func (a *app) logTo(name string) (io.WriteCloser, error) {
	if name == "-" {
		return nopCloser{os.Stderr}, nil
	}
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

type nopCloser struct{ io.Writer }

func (nopCloser) Close() error { return nil }

// lines logs for people, or, with --json, for programs.
func (a *app) lines(out io.Writer) *slog.Logger {
	if a.json {
		return slog.New(slog.NewJSONHandler(out, nil))
	}
	return slog.New(slog.NewTextHandler(out, nil))
}

// fit says which flags do not go together.
func (s *serving) fit() error {
	if (s.opts.CertFile == "") != (s.opts.KeyFile == "") {
		return errors.New("--tls-cert and --tls-key go together: add the other one")
	}
	if s.opts.Server.Limits.Requests < 0 || s.opts.Server.Limits.Uploads < 0 {
		return errors.New("--max-requests and --max-uploads are numbers from 1; 0 is the default")
	}
	guard := embedded.Guard{TLS: s.opts.CertFile != "", Auth: s.passwords != "" || s.access != ""}
	if err := embedded.CheckAddress(s.opts.Address, guard); err != nil {
		return fmt.Errorf("invalid argument %q for \"--addr\" flag: %w", s.opts.Address, err)
	}
	return nil
}

// authorize reads who may do what.
func (s *serving) authorize() error {
	var users *server.Passwords
	if s.passwords != "" {
		var err error
		if users, err = fromFile("--htpasswd", s.passwords, server.Htpasswd); err != nil {
			return err
		}
		s.opts.Server.Authorizer = users
	}
	if s.access == "" {
		return nil
	}
	rules, err := fromFile("--access", s.access, server.ParseRules)
	if err != nil {
		return err
	}
	if err := s.strangers(rules, users); err != nil {
		return err
	}
	s.opts.Server.Authorizer, err = issuer(rules, users)
	return err
}

// strangers tells of users that have rules and no password.
func (s *serving) strangers(rules server.Rules, users *server.Passwords) error {
	named := rules.Users()
	if users == nil && len(named) > 0 {
		return fmt.Errorf("--access %s: it has rules for %s, and nobody can log in; add --htpasswd FILE", s.access, strings.Join(named, ", "))
	}
	for _, name := range named {
		if name != "*" && !users.Has(name) {
			warn(fmt.Sprintf("--access %s has rules for %s, who is not in --htpasswd %s", s.access, name, s.passwords))
		}
	}
	return nil
}

// issuer gives tokens to users; without any, to those who are anonymous.
func issuer(rules server.Rules, users *server.Passwords) (*server.Issuer, error) {
	if users == nil {
		return server.NewIssuer(rules, nil)
	}
	return server.NewIssuer(rules, users)
}

// fromFile parses the file that a flag names.
func fromFile[T any](flag, name string, parse func(io.Reader) (T, error)) (parsed T, err error) {
	file, err := os.Open(name)
	if err != nil {
		return parsed, fmt.Errorf("%s: %w", flag, err)
	}
	defer file.Close()
	if parsed, err = parse(file); err != nil {
		err = fmt.Errorf("%s %s: %w", flag, name, err)
	}
	return parsed, err
}

func (s *serving) scheme() string {
	if s.opts.CertFile != "" {
		return "https"
	}
	return "http"
}

// ready tells that requests are answered now: the line can be waited for, as data it is one line too.
func (a *app) ready(layout, scheme, address string) {
	if a.json {
		json.NewEncoder(os.Stdout).Encode(map[string]string{"layout": layout, "address": address, "url": scheme + "://" + address})
		return
	}
	fmt.Printf("serving %s at %s://%s\n", layout, scheme, address)
}
