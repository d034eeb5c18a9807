package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/plugin"
	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/server"
)

// serving is what berth serve was asked for.
type serving struct {
	listen     plugin.ListenOptions
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
	opts, flags := &s.listen, cmd.Flags()
	opts.Address = "127.0.0.1:5000"
	flags.Var((*addressValue)(&opts.Address), "addr", "listen at `HOST:PORT`; port 0 is any that is free")
	flags.Var((*nameValue)(&opts.Hosts), "host", "answer to this name too, `HOST[:PORT]`; may be repeated")
	flags.Var((*textValue)(&opts.CertFile), "tls-cert", "serve https with the certificate in this PEM `FILE`, and those of its issuers behind it")
	flags.Var((*textValue)(&opts.KeyFile), "tls-key", "and with the private key in this PEM `FILE`")
	flags.Var((*textValue)(&s.passwords), "htpasswd", "ask for user and password, of this `FILE` as htpasswd -B -c FILE USER writes it")
	flags.Var((*textValue)(&s.access), "access", "give tokens by the rules in this YAML `FILE`, to the users of --htpasswd and to who is anonymous")
	flags.Var((*classValue)(&opts.AllowClasses), "allow-class", "take only manifests of this class, a `GLOB`; may be repeated")
	flags.Var((*classValue)(&opts.DenyClasses), "deny-class", "take no manifests of this class, a `GLOB`; may be repeated")
	flags.Var((*textValue)(&s.accessLog), "access-log", "write a line about each request to the end of this `FILE`; - is standard error")
	flags.IntVar(&opts.MaxRequests, "max-requests", 0, "answer at most so many requests at once, and turn others away; 0 is 1024")
	flags.IntVar(&opts.MaxUploads, "max-uploads", 0, "take the bytes of at most so many blobs at once, others wait; 0 is 128")
	flags.Var((*sizeValue)(&opts.MinChunk), "min-chunk", "ask clients for chunks of at least this `SIZE`, like 16MiB")
	flags.Var(&s.durability, "durability", "what an answer promises to outlive, `process|power`: the end of the process, or a power cut")
	flags.BoolVar(&opts.ReadOnly, "read-only", false, "refuse pushes and deletes")
	flags.BoolVar(&opts.AllowMissing, "allow-sparse", false, "take images and indexes whose children are missing")
}

func (a *app) runServe(cmd *cobra.Command, s *serving) error {
	if err := s.fit(); err != nil {
		return usageError{err}
	}
	if err := a.mayBeMade(); err != nil {
		return err
	}
	layout, err := a.layoutDir()
	if err == nil {
		err = s.authorize()
	}
	if err != nil {
		return err
	}
	opts := embedded.ServeOptions{Layout: layout, Listen: s.listen, Durability: s.durability.chosen, Logger: a.logger()}
	opts.Ready = func(at plugin.Endpoint) { a.ready(layout, s.scheme(), at.Address) }
	if s.accessLog != "" {
		out, err := a.logTo(s.accessLog)
		if err != nil {
			return fmt.Errorf("--access-log: %w", err)
		}
		defer out.Close()
		opts.AccessLog = a.lines(out)
	}
	defer embedded.Dedicate()()
	return embedded.Serve(cmd.Context(), opts)
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

// fit says which flags do not go together, and makes paths good for another process.
func (s *serving) fit() error {
	if (s.listen.CertFile == "") != (s.listen.KeyFile == "") {
		return errors.New("--tls-cert and --tls-key go together: add the other one")
	}
	if s.listen.MaxRequests < 0 || s.listen.MaxUploads < 0 {
		return errors.New("--max-requests and --max-uploads are numbers from 1; 0 is the default")
	}
	guard := embedded.Guard{TLS: s.listen.CertFile != "", Auth: s.passwords != "" || s.access != ""}
	if err := embedded.CheckAddress(s.listen.Address, guard); err != nil {
		return fmt.Errorf("invalid argument %q for \"--addr\" flag: %w", s.listen.Address, err)
	}
	for _, name := range []*string{&s.listen.CertFile, &s.listen.KeyFile} {
		if *name == "" {
			continue
		}
		var err error
		if *name, err = filepath.Abs(*name); err != nil {
			return err
		}
	}
	return nil
}

// authorize reads who may do what.
func (s *serving) authorize() (err error) {
	var users *server.Passwords
	if s.passwords != "" {
		if users, s.listen.Passwords, err = fromFile("--htpasswd", s.passwords, server.Htpasswd); err != nil {
			return err
		}
	}
	if s.access == "" {
		return nil
	}
	var rules server.Rules
	if rules, s.listen.Rules, err = fromFile("--access", s.access, server.ParseRules); err != nil {
		return err
	}
	return s.strangers(rules, users)
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

// fromFile parses the file that a flag names, and returns its content too: never without a byte, for that would be
// no file.
func fromFile[T any](flag, name string, parse func(io.Reader) (T, error)) (parsed T, content []byte, err error) {
	if content, err = os.ReadFile(name); err != nil {
		return parsed, nil, fmt.Errorf("%s: %w", flag, err)
	}
	if parsed, err = parse(bytes.NewReader(content)); err != nil {
		err = fmt.Errorf("%s %s: %w", flag, name, err)
	}
	return parsed, append(content, '\n'), err
}

func (s *serving) scheme() string {
	if s.listen.CertFile != "" {
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
