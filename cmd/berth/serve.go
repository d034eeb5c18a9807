package main

import (
	"encoding/json"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/berthoci/berth/sdk/embedded"
	"github.com/berthoci/berth/server"
)

func (a *app) serve() *cobra.Command {
	var opts embedded.ServeOptions
	var passwords string
	durability := choiceValue{chosen: "process", words: []string{"process", "power"}}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the layout as a registry, until interrupted",
		Long: `Serve the layout as a registry, until interrupted. When it answers it prints one line with its address.
Any program on this machine may use it, unless --htpasswd asks for a password.

What is pushed outlives the process, however that ends, and a second later a power cut as well; with
--durability power each answer waits for the disk.`,
		Example: `  berth serve
  berth serve --addr 127.0.0.1:0 --htpasswd users
  berth serve --durability power`,
		Args: arguments(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opts.Logger = a.logger()
			if err := a.mayBeMade(); err != nil {
				return err
			}
			err := authorize(&opts, passwords)
			if err == nil {
				opts.Layout, err = a.layoutDir()
			}
			if err != nil {
				return err
			}
			opts.Durability = durability.chosen
			opts.Ready = func(address string) { a.ready(opts.Layout, address) }
			return embedded.Serve(cmd.Context(), opts)
		},
	}
	flags := cmd.Flags()
	opts.Address = "127.0.0.1:5000"
	flags.Var((*addressValue)(&opts.Address), "addr", "loopback `HOST:PORT`; port 0 is any that is free")
	flags.Var((*textValue)(&passwords), "htpasswd", "ask for user and password, of this `FILE` as htpasswd -B -c FILE USER writes it")
	flags.Var(&durability, "durability", "what an answer promises to outlive, `process|power`: the end of the process, or a power cut")
	flags.BoolVar(&opts.Server.ReadOnly, "read-only", false, "refuse pushes and deletes")
	flags.BoolVar(&opts.Server.AllowMissing, "allow-sparse", false, "take images and indexes whose children are missing")
	return cmd
}

func authorize(opts *embedded.ServeOptions, passwords string) error {
	if passwords == "" {
		return nil
	}
	file, err := os.Open(passwords)
	if err != nil {
		return fmt.Errorf("--htpasswd: %w", err)
	}
	defer file.Close()
	if opts.Server.Authorizer, err = server.Htpasswd(file); err != nil {
		return fmt.Errorf("--htpasswd %s: %w", passwords, err)
	}
	return nil
}

// ready tells that requests are answered now: the line can be waited for, as data it is one line too.
func (a *app) ready(layout, address string) {
	if a.json {
		json.NewEncoder(os.Stdout).Encode(map[string]string{"layout": layout, "address": address})
		return
	}
	fmt.Printf("serving %s at http://%s\n", layout, address)
}
